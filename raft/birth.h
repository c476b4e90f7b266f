// How a cluster is born, once (DESIGN.md, "Identity, birth, membership"): a pure state machine. No
// clock, no I/O, no global random; inputs carry `now`, and everything it wants is in one output.
//
// The story. Founders are named in the configuration; addresses only say where to ask who is who.
// Every process asks every address `Identify`, again and again.
//   1. Whoever hears of an existing cluster does not found another one.
//   2. Otherwise the founder whose name sorts first bytewise, and nobody else, makes a proposal
//      durable (round, a new cluster id, every founder's name and store) once each founder has
//      answered with one store, unborn and configured with the same names. Only then it is sent.
//   3. A follower pledges itself by a durable compare-and-swap on the pledge that it last reported,
//      and only to a later round. A pledge may change until the store has recorded Born: were it
//      irrevocable, one wiped disk would end every birth.
//   4. With all pledges the proposer decides: it records Born itself. A store does so at most once.
//   5. Born carries the first log entry. It is accepted only by a store whose pledge is the decided
//      proposal. Any born founder passes it on, until BirthComplete is applied.
//
// Why there are no two clusters. Let A and B be decided, A the earlier round. Every store in B has
// pledged itself to B, unborn; whoever of them is in A as well did so after A, for pledges only
// move upwards, and so never accepts Born of A. A keeps its proposer and stores that B does not
// name: with one founder wiped, or doubled, no majority. Without the order of rounds two live nodes
// with the proposer's name could cross: each takes over one follower, counts the other's pledge
// from before it was taken over, and both decide. (The model finds that within some hundred seeds.)
//
// A founder whose disk is lost before anybody is born is replaced by its new store in a new round.
// One that is lost after somebody is born stops birth: the others name it, and what to do. This is
// safe to repair by starting again, because no client write is accepted before BirthComplete.
//
// It also keeps the rule of copied directories: a *direct* answer, to a question that this process
// asked, with its own store id and another nonce proves a live double, and both ends stop. Messages
// of a former self prove nothing; what others report only makes this process ask there. So that a
// copy neither votes nor acknowledges in the name of its original, a process asks first and takes
// part in Raft afterwards (may_run).
//
// A store that is not born may also be let into a cluster that exists: when a leader of it, which
// knows the store by its id, sends it something to append (an Invitation). Then it records that
// cluster for good, makes an empty log and an empty state, and runs: it has no membership, so it
// neither campaigns nor counts for anything, until the leader's log or snapshot says who takes
// part. It takes no invitation while it is pledged to a proposal (whose proposer may count on it)
// or hears of another cluster than the one that invites it: behind one DNS name there may be two,
// and which one is meant is for people to say.
//
// Not thread-safe: the driver calls it under one lock.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "raft/autopilot.h"
#include "raft/birth_messages.h"
#include "raft/birth_record.h"
#include "raft/duplicate.h"

namespace quorate::raft {

struct BirthOptions {
  StoreId store;
  std::string name;     // the configured node id, 1 to 255 bytes
  std::string address;  // the advertised peer address; empty without a peer port
  uint64_t nonce = 0;   // random per process, not 0
  uint64_t boot = 0;    // counted up durably before this process used it
  uint64_t seed = 0;    // random per process: cluster ids come from it
  // The founders' names, any order, no name twice, at most kMembersMax. This node's own name need
  // not be among them: then it only joins.
  std::vector<std::string> founders;
  bool birth_complete = false;  // what the state machine says at the start
  bool caught_up_once = false;  // the store has caught up as a member of its cluster, once

  Duration ask_interval = std::chrono::milliseconds(250);    // until complete
  Duration complete_ask_interval = std::chrono::seconds(2);  // afterwards, for doubles
  Duration call_timeout = std::chrono::seconds(2);           // an answer after it is ignored
  Duration answer_lifetime = std::chrono::seconds(3);        // an older answer says nothing
  Duration halt_linger = std::chrono::seconds(3);  // so that the double's own question is answered
  // How long the node waits for the answers to its first questions at most. One minimum election
  // timeout costs nothing: for that long after its start the core neither votes nor campaigns.
  Duration ask_first_max = std::chrono::milliseconds(150);
};

struct PeerAddress {
  std::string address;
  std::string name;  // static peers: who should be there; empty: unknown (DNS)
  friend bool operator==(const PeerAddress&, const PeerAddress&) = default;
};

// To be carried as a unary RPC and answered by OnReply or OnCallFailed with the same id.
struct BirthCall {
  uint64_t id = 0;
  std::string address;
  BirthRequest request;
};

struct BirthOutput {
  // To be made durable before anything else of this output is done, before a reply computed by the
  // same input is sent, and before the next input.
  std::optional<BirthRecord> persist;
  // Make the log now: for this cluster, with this entry, durable; then OnLogCreated. After a crash
  // in between the next process is told again.
  struct CreateLog {
    ClusterId cluster;
    EntryPtr first_entry;  // null: let in, the log is empty
  };
  std::optional<CreateLog> create_log;
  std::vector<BirthCall> calls;
  // Another live process has this store id. Once set it comes once: stop voting and serving at
  // once, keep answering Identify, and end the process when `exit` is set.
  std::optional<std::string> halt;
  bool exit = false;
};

struct BirthStatus {
  BirthState state = BirthState::kSearching;
  ClusterId cluster;               // 0: not born
  bool joined = false;             // let into that cluster, not born with it
  std::vector<std::string> lacks;  // what birth waits for, one sentence each; empty when complete
};

class Birth {
 public:
  // `record` is what was last persisted; default for a new store. CHECKs the options. There may be
  // an output already.
  Birth(const BirthOptions& options, BirthRecord record, Instant now);

  // --- Inputs; after each the driver takes the output. ---

  // From now on questions go out: ask_first_max is counted from here, because a process may take
  // longer than that until its ports are open. Before it nobody may run.
  void Begin(Instant now);
  // Where to ask, as a whole; may be called again at any time. Until the first call nothing
  // happens, so that a node whose discovery fails is not born alone. At most kAddressesMax are
  // used. `whole`: discovery has answered, and in full. Before that a founder on its own is not
  // born, and may_run waits for as long as for somebody who does not answer.
  void SetAddresses(std::vector<PeerAddress> addresses, Instant now, bool whole = true);
  void Tick(Instant now);
  Instant NextDeadline() const;

  IdentifyReply OnIdentify(const IdentifyRequest& request, Instant now);
  PledgeReply OnPropose(const Propose& request, Instant now);
  BornReply OnBorn(const Born& request, Instant now);
  // kNone: this store is durably in that cluster, once the output is.
  Refusal OnInvited(const Invitation& invitation, Instant now);

  void OnReply(uint64_t call, const BirthReply& reply, Instant now);
  void OnCallFailed(uint64_t call, const std::string& reason, Instant now);

  void OnLogCreated(Instant now);
  // The membership in force, for what this process tells others. Born only.
  void OnMembership(const Membership& membership);
  void OnBirthComplete(Instant now);
  // It has caught up, and is a member by a committed entry; durably.
  void OnCaughtUp() { caught_up_ = true; }

  BirthOutput TakeOutput() { return std::exchange(output_, BirthOutput()); }

  // --- Views ---
  BirthStatus Status(Instant now) const;
  // Born: who of those that discovery shows answers and waits to be let into this cluster, each
  // store once. Also one that was let in, and is no member because that leader fell; and, marked,
  // those of this cluster that have caught up once, members or not any more.
  std::vector<Newcomer> Newcomers(Instant now) const;
  // The node may take part in Raft: born, the log holds entry 1, and no other process with this
  // store id was found. For the latter every address has answered this process once, or failed to;
  // and whatever other places were named in those answers, too. At most ask_first_max is waited for
  // the slow ones. True from then on, until a double is found.
  bool may_run() const { return record_.log_created && asked_first_ && !halted_; }
  const BirthRecord& record() const { return record_; }

  static constexpr size_t kAddressesMax = 64;

 private:
  enum class CallKind : uint8_t { kIdentify, kPropose, kBorn };
  // What this process knows of one address.
  struct Peer {
    void Ended(CallKind kind) {
      (kind == CallKind::kIdentify ? asking : telling) = false;
      asked = asked || kind == CallKind::kIdentify;
    }

    std::string expected_name;  // empty: anybody
    bool listed = false;        // by SetAddresses; otherwise asked once, for a double
    Instant ask_at{};
    Instant asked_at{};
    bool asking = false;   // an Identify call is open
    bool asked = false;    // one has ended, well or not
    bool telling = false;  // a Propose or Born call is open
    std::optional<IdentifyReply> answer;
    Instant answered_at{};
    std::string error;  // why the last call brought no answer; empty: it did, or none was made
    Refusal refusal = Refusal::kNone;  // of the last Propose or Born
  };
  struct OpenCall {
    CallKind kind = CallKind::kIdentify;
    std::string address;
    StoreId to;
    Instant deadline{};
  };
  // A live store that calls itself by some name, as the latest answers have it.
  struct Found {
    StoreId store;
    std::string asked;    // where it answered; empty: this process
    std::string address;  // what it advertises
    ClusterId cluster;
  };
  using FoundByName = std::map<std::string, std::vector<Found>>;

  uint64_t Random();
  bool Founding() const;  // this node's name is a founder's
  bool First() const { return !founders_.empty() && founders_.front() == options_.name; }
  bool Fresh(const Peer& peer, Instant now) const;
  // The latest answer of somebody in a cluster, unless this store is in it; prefers one that does
  // not know this store.
  const IdentifyReply* ExistingCluster(Instant now) const;
  // Somebody of yet another one; null: at most one is heard of.
  const IdentifyReply* SecondCluster(Instant now) const;
  FoundByName Find(Instant now) const;
  bool FoundersDiffer(const IdentifyReply& answer) const;

  void Call(const std::string& address, CallKind kind, StoreId to, BirthRequest request,
            Instant now);
  void Ask(const std::string& address, Peer* peer, Instant now);
  void AskForDouble(const std::string& address, Instant now);
  void OnIdentified(const std::string& address, IdentifyReply reply, Instant now);
  void OnPledgeReported(StoreId store, const Pledge& pledge);
  void Halt(const std::string& address, const IdentifyReply& answer, Instant now);

  // Proposes, decides; after every input.
  void Advance(Instant now);
  // All founders, each with the one store that answers to its name; nullopt: not yet.
  std::optional<std::vector<Founder>> Candidates(Instant now) const;
  // Nobody is left of whom it is not known whether it is a double.
  bool EverybodyAsked() const;
  void StartRound(std::vector<Founder> founders);
  bool AllPledged() const;
  bool Overtaken() const;  // a founder has pledged itself to a later proposal than ours
  // Sends the store at this address what it lacks: the proposal, or Born.
  void Tell(const std::string& address, Peer* peer, Instant now);
  void TellAll(Instant now);
  void BecomeBorn(std::string payload);
  void Join(ClusterId cluster, Instant now);
  BirthOutput::CreateLog LogToCreate() const;
  Refusal Judge(const Propose& request, Instant now) const;

  // birth_status.cc
  BirthState StateAt(Instant now) const;
  std::vector<std::string> LacksToJoin(const IdentifyReply& cluster, Instant now) const;
  std::vector<std::string> LacksUnborn(Instant now) const;
  std::vector<std::string> LacksBorn(Instant now) const;
  std::vector<std::string> SayNoMember(Instant now) const;
  std::string LacksJoined(Instant now) const;
  std::string LacksRemoved(Instant now) const;
  // Somebody of this cluster who says that birth is complete; null: nobody does.
  const IdentifyReply* CompleteIn(ClusterId cluster, Instant now) const;
  // When a founder's disk is lost: what may be emptied, and when.
  std::string StartAgain(Instant now) const;
  // Of founders with another disk than the one that was born: what happened and what to do.
  std::vector<std::string> LostFounders(Instant now) const;
  std::vector<std::string> DifferentFounders(Instant now) const;
  // "cp-1 (10.0.0.2:7000) does not answer: connection refused", or what else is known of it.
  std::string Missing(const std::string& name, Instant now) const;

  // Constant after construction.
  const BirthOptions options_;
  const std::vector<std::string> founders_;  // sorted bytewise

  std::optional<Instant> began_;
  uint64_t random_state_;
  BirthRecord record_;      // as of the last output: durable before the next input
  std::string membership_;  // born: encoded, the latest known
  Instant joined_at_;       // this process was told so, or started so
  bool complete_ = false;
  bool caught_up_ = false;
  bool addresses_known_ = false;
  bool addresses_whole_ = false;
  bool asked_first_ = false;
  std::map<std::string, Peer> peers_;  // by address
  std::map<uint64_t, OpenCall> calls_;
  uint64_t next_call_ = 1;
  // The latest pledge that each store reported to this process.
  std::map<StoreId, Pledge> reported_;
  std::set<StoreId> known_born_;
  ClaimTable claims_;
  std::optional<std::string> halted_;
  Instant exit_at_{};
  BirthOutput output_;
};

}  // namespace quorate::raft
