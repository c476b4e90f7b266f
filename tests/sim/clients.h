// The clients: each does one operation after the other, through any node, and tells the history
// what it asked for and what it heard.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/sim/client_mix.h"
#include "tests/sim/context.h"
#include "tests/sim/process.h"

namespace quorate::sim {

class Clients {
 public:
  explicit Clients(Context* context);

  void Start();
  // No operation begins any more, until Start is called again.
  void Stop() { stopped_ = true; }
  // All connections to this machine break: what was asked there has an unknown outcome.
  void OnProcessGone(size_t machine);

  // One write through this machine, for the calm at the end; `done(true)`: it was answered.
  void WriteOnce(size_t machine, std::function<void(bool)> done);
  // And one read of the whole store; `done` runs once, but never when the process ends before.
  void ReadAllOnce(size_t machine, ReadQuestion::Freshness freshness, NodeReads::Done done);

 private:
  struct Client {
    uint64_t operation = 0;  // under way; 0: none
    bool reads = false;
    size_t machine = 0;
    uint64_t life = 0;  // of the process asked
    ingress::WriteId write;
    // The write under way, to be sent again.
    v1::Command command;
    bool simple = false;
    size_t key = 0;      // of a simple one
    uint64_t value = 0;  // that it leaves there; 0: none
    Micros give_up_at = 0;
    bool may_be_in_a_log = false;
    ClientView view;
    std::optional<ReadQuestion> next_page;  // of a list that it has begun
    uint64_t round = 0;                     // counts Think
  };

  void Next(size_t client);
  void Think(size_t client);
  Process* PickNode();
  void BeginRead(size_t client, ReadQuestion question, bool page, Process* process);
  void EndRead(size_t client, const ReadQuestion& question, bool page, const ReadAnswer& answer);
  void CountRead(const ReadQuestion& question, bool page, const ReadAnswer& answer);
  void BeginWrite(size_t client, Process* process);
  void SendWrite(size_t client, Process* process);
  // False: it is not sent again.
  bool Retry(size_t client, uint64_t operation);
  void EndWrite(size_t client, uint64_t operation, const ingress::Outcome& outcome);
  void TakeAnswer(Client* me, const v1::Answer& answer);
  bool IsCurrent(size_t client, uint64_t operation) const {
    return clients_[client].operation == operation;
  }
  void GiveUp(size_t client);
  void End(size_t client);

  Context* const context_;
  ClientMix mix_;
  std::vector<Client> clients_;
  bool stopped_ = false;
};

}  // namespace quorate::sim
