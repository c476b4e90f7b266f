// What a change of the cluster asks other processes first: who a newcomer is, who still answers,
// and what their page tokens show.
#include <algorithm>
#include <utility>

#include "services/birth_codec.h"
#include "services/cluster_changes.h"
#include "services/cluster_changes_op.h"
#include "services/errors.h"
#include "services/logging.h"

namespace quorate::services {
namespace {

using grpc::StatusCode;

bool CountsAsActive(const ClusterView& view, StoreId store) {
  return std::any_of(
      view.node->peers.begin(), view.node->peers.end(),
      [store](const raft::PeerView& peer) { return peer.store == store && peer.active; });
}

// Where to ask a member: where it was last heard of, or what its entry says.
std::string AddressOf(const ClusterView& view, const raft::Member& member) {
  const auto heard = view.addresses.find(member.store);
  return heard != view.addresses.end() ? heard->second : member.address;
}

bool IsStore(const absl::StatusOr<v1::IdentifyResponse>& answer, StoreId store) {
  return answer.ok() && StoreId(answer->header().from_store()) == store;
}

ChangePlan NoPlan(grpc::Status status, StoreId store = StoreId()) {
  ChangePlan plan;
  plan.answer = std::move(status);
  plan.store = store;
  return plan;
}

}  // namespace

std::vector<absl::StatusOr<v1::IdentifyResponse>> ClusterChanges::Ask(
    const OpPtr& op, const std::vector<Question>& questions) {
  struct Asked {
    size_t open = 0;
    std::vector<absl::StatusOr<v1::IdentifyResponse>> answers;
  };
  const auto asked = std::make_shared<Asked>();  // protected by op->mutex
  asked->open = questions.size();
  // "Not waited for", without words: those would be one object of all of them, whose owners the
  // thread sanitizer does not see (abseil counts them).
  asked->answers.assign(questions.size(), absl::CancelledError());
  std::vector<std::function<void()>> give_up;
  for (size_t i = 0; i < questions.size(); ++i) {
    give_up.push_back(ports_.identify(questions[i].address, questions[i].sure,
                                      [op, asked, i](absl::StatusOr<v1::IdentifyResponse> answer) {
                                        {
                                          std::lock_guard lock(op->mutex);
                                          --asked->open;
                                          if (i < asked->answers.size()) {
                                            asked->answers[i] = std::move(answer);
                                          }
                                        }
                                        op->changed.notify_all();
                                      }));
  }
  std::vector<absl::StatusOr<v1::IdentifyResponse>> answers;
  {
    std::unique_lock lock(op->mutex);
    (void)op->WaitUntil(&lock, Instant::max(), [&] { return asked->open == 0; });
    // Nothing of them stays with the callbacks: who is given up writes nowhere.
    answers.swap(asked->answers);
  }
  for (const auto& give_one_up : give_up) give_one_up();
  return answers;
}

ChangePlan ClusterChanges::PlanNewcomer(const OpPtr& op, const std::string& address,
                                        const ClusterView& view) {
  const raft::Membership& members = *view.node->membership;
  // An earlier try has done it: nobody need answer for that.
  if (op->maybe_done && op->meant && members.Find(op->meant) != nullptr) {
    return NoPlan(grpc::Status::OK, op->meant);
  }
  const absl::StatusOr<v1::IdentifyResponse> answer = Ask(op, {{address, false}}).front();
  if (!answer.ok()) {
    // gRPC's words for it differ from call to call: they are for the log.
    if (op->Wanted()) {
      LogWarning("a node that is to be added does not answer",
                 {{"address", address}, {"error", std::string(answer.status().message())}});
    }
    return NoPlan(MakeError(StatusCode::UNAVAILABLE, "NODE_SILENT",
                            "nobody answers at " + address +
                                ": check that the node runs, that this is its peer address "
                                "(raft.bindAddress) and that the leader can reach it",
                            {{"address", address}}, kChangeRetryDelay));
  }
  const std::optional<raft::IdentifyReply> reply = FromProto(*answer);
  if (!reply || !reply->store || reply->name.empty() || reply->name.size() > 255 ||
      reply->address.size() > 255) {
    return NoPlan(MakeError(
        StatusCode::FAILED_PRECONDITION, "NODE_NOT_WAITING",
        "what answers at " + address + " is no node of this build, or not a peer address"));
  }
  if (op->own() && reply->store != op->meant) {
    return NoPlan(grpc::Status(StatusCode::ABORTED, "another store answers at " + address));
  }
  // What this node has heard of it before may be from a moment in which it had not caught up yet.
  if (op->own() && raft::WasTakenOut(members, *reply)) {
    return NoPlan(grpc::Status(StatusCode::ABORTED,
                               "it has been a member and was removed: `quorate member add " +
                                   address + "` brings it back"));
  }
  const Newcomer newcomer{address, *reply};
  const std::vector<raft::Member> holders = raft::NameHolders(members, *reply);
  const auto alive = std::find_if(holders.begin(), holders.end(), [&](const raft::Member& holder) {
    return StillAnswers(op, holder, view);
  });
  ChangePlan plan = PlanAdd(members, newcomer, alive == holders.end() ? nullptr : &*alive);
  if (!plan.answer) plan.answer = CheckAdvertised(op, newcomer);
  return plan;
}

// Everybody will look for the node where it says that it is.
std::optional<grpc::Status> ClusterChanges::CheckAdvertised(const OpPtr& op,
                                                            const Newcomer& newcomer) {
  const raft::IdentifyReply& reply = newcomer.reply;
  if (reply.address.empty() || reply.address == newcomer.asked_at) return std::nullopt;
  const absl::StatusOr<v1::IdentifyResponse> answer = Ask(op, {{reply.address, true}}).front();
  if (IsStore(answer, reply.store)) return std::nullopt;
  return MakeError(
      StatusCode::FAILED_PRECONDITION, "ADVERTISED_ADDRESS_WRONG",
      "the node at " + newcomer.asked_at + " is " + reply.name +
          " and says that it is reached at " + reply.address + ", where " +
          (answer.ok() ? "another store answers" : "the leader reaches nobody") +
          ": set its raft.advertiseAddress to what the members reach it by, and start it again",
      {{"address", newcomer.asked_at}, {"advertised_address", reply.address}});
}

// More than the core knows: a leader of a moment has heard nobody yet.
bool ClusterChanges::StillAnswers(const OpPtr& op, const raft::Member& holder,
                                  const ClusterView& view) {
  if (holder.store == view.store || CountsAsActive(view, holder.store)) return true;
  const std::string address = AddressOf(view, holder);
  return !address.empty() && IsStore(Ask(op, {{address, true}}).front(), holder.store);
}

std::map<StoreId, v1::IdentifyResponse> ClusterChanges::AskAll(
    const OpPtr& op, const std::vector<raft::Member>& members, const ClusterView& view,
    const std::function<bool(StoreId)>& sure) {
  std::vector<StoreId> stores;
  std::vector<Question> questions;
  for (const raft::Member& member : members) {
    const std::string address = AddressOf(view, member);
    if (member.store == view.store || address.empty()) continue;
    stores.push_back(member.store);
    questions.push_back({address, sure(member.store)});
  }
  std::vector<absl::StatusOr<v1::IdentifyResponse>> answers = Ask(op, questions);
  std::map<StoreId, v1::IdentifyResponse> by_store;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (IsStore(answers[i], stores[i])) by_store.emplace(stores[i], *std::move(answers[i]));
  }
  return by_store;
}

// Only what says more of the members than has been said before needs everybody's build: the first
// demotion, say.
std::optional<grpc::Status> ClusterChanges::CheckReadable(const OpPtr& op, const ChangePlan& plan,
                                                          const ClusterView& view) {
  const raft::Membership& before = *view.node->membership;
  const auto planned = raft::PlanChange(before, plan.change);
  const auto* after = std::get_if<raft::Membership>(&planned);
  if (after == nullptr) return std::nullopt;
  const uint32_t needed = raft::VersionOf(*after);
  if (needed <= raft::VersionOf(before) || needed < raft::kMembershipVersion) return std::nullopt;
  return CheckBuilds(
      op, [needed](const auto& answer) { return answer.membership_version() >= needed; });
}

// The core judges by whom it has heard within an election timeout. A voter that has died since
// would make a change that can neither be committed nor taken back: so those who are to vote are
// asked now. Who was heard a moment ago is asked with patience: a connection that has just broken
// says nothing.
std::optional<grpc::Status> ClusterChanges::CheckAlive(const OpPtr& op, const ChangePlan& plan,
                                                       const ClusterView& view) {
  const auto planned = raft::PlanChange(*view.node->membership, plan.change);
  const auto* after = std::get_if<raft::Membership>(&planned);
  if (plan.change.force || after == nullptr || after->Voters() == view.node->membership->Voters()) {
    return std::nullopt;
  }
  std::vector<raft::Member> voters;
  raft::ChangeResult result;
  for (const raft::Member& member : after->members) {
    if (member.voter) voters.push_back(member);
    if (member.voter && member.store == view.store) result.reachable = 1;
  }
  result.status = raft::ChangeStatus::kWouldLoseQuorum;
  result.voters = voters.size();
  result.needed = voters.size() / 2 + 1;
  const auto answers =
      AskAll(op, voters, view, [&view](StoreId store) { return CountsAsActive(view, store); });
  // Who is about to exit, because its directory was copied, still says who it is.
  for (const auto& [store, answer] : answers) {
    if (answer.state() != static_cast<uint32_t>(raft::BirthState::kHalted)) ++result.reachable;
  }
  if (voters.empty() || result.reachable >= result.needed) return std::nullopt;
  return RefusalOf(result, *view.node->membership);
}

// A listing or history that somebody pages through must not lose its revision under way: every
// member that answers says what its page tokens show.
grpc::Status ClusterChanges::CheckPins(const OpPtr& op, uint64_t revision, uint64_t reached,
                                       std::set<StoreId>* silent) {
  const ClusterView view = ports_.view();
  const std::vector<raft::Member>& members = view.node->membership->members;
  const auto answers =
      AskAll(op, members, view, [silent](StoreId store) { return !silent->contains(store); });
  silent->clear();
  for (const raft::Member& member : members) {
    if (!answers.contains(member.store)) silent->insert(member.store);
  }
  uint64_t oldest = ports_.pinned_revision();
  std::string who = view.node_id;
  for (const auto& [store, answer] : answers) {
    const uint64_t pinned = answer.pinned_revision();
    if (pinned == 0 || (oldest != 0 && oldest <= pinned)) continue;
    oldest = pinned;
    who = answer.name();
  }
  if (oldest == 0 || revision < oldest) return grpc::Status::OK;
  ErrorMetadata metadata = {{"revision", std::to_string(oldest)}, {"node_id", who}};
  std::string message = "a page token that " + who +
                        " gave out within the last ten minutes shows revision " +
                        std::to_string(oldest) +
                        ": compact to a lower one, wait, or `force` it, which ends that listing";
  if (reached != 0) {
    metadata["compacted_revision"] = std::to_string(reached);
    message += ". History up to revision " + std::to_string(reached) + " is gone already";
  }
  return MakeError(StatusCode::FAILED_PRECONDITION, "PAGE_TOKEN_PINS", message, metadata);
}

}  // namespace quorate::services
