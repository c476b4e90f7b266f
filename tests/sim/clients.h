// The clients: each does one operation after the other, through any node, and tells the history
// what it asked for and what it heard.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/sim/context.h"
#include "tests/sim/process.h"

namespace quorate::sim {

class Clients {
 public:
  explicit Clients(Context* context);

  void Start();
  // No operation begins any more.
  void Stop() { stopped_ = true; }
  // All connections to this machine break: what was asked there has an unknown outcome.
  void OnProcessGone(size_t machine);

  // One write through this machine, for the calm at the end; `done(true)`: it was answered.
  void WriteOnce(size_t machine, std::function<void(bool)> done);

 private:
  struct Client {
    uint64_t operation = 0;  // under way; 0: none
    size_t machine = 0;
    uint64_t life = 0;  // of the process asked
    ingress::WriteId write;
    // The write under way, to be sent again (the light state machine knows no request ids).
    v1::Command command;
    size_t key = 0;
    uint64_t value = 0;
    Micros give_up_at = 0;
    bool may_be_in_a_log = false;
    uint64_t revision = 1;  // of the store, that it has seen
    // What it saw last under each key, for its conditional writes.
    std::map<size_t, uint64_t> seen;
  };

  void Next(size_t client);
  void Think(size_t client);
  Process* PickNode();
  void BeginRead(size_t client, size_t key, Process* process, bool local);
  void BeginWrite(size_t client, size_t key, Process* process);
  void SendWrite(size_t client, Process* process);
  // False: it is not sent again.
  bool Retry(size_t client, uint64_t operation);
  void EndWrite(size_t client, size_t key, uint64_t operation, uint64_t value,
                const ingress::Outcome& outcome);
  bool IsCurrent(size_t client, uint64_t operation) const {
    return clients_[client].operation == operation;
  }
  void End(size_t client);
  std::string KeyName(size_t key) const { return "k" + std::to_string(key); }
  std::string ValueOf(uint64_t operation) const;

  Context* const context_;
  std::vector<Client> clients_;
  bool stopped_ = false;
};

}  // namespace quorate::sim
