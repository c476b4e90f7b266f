// Raft's messages between machines, as long as they are on their way.
#pragma once

#include <cstdint>
#include <vector>

#include "raft/core/message.h"
#include "tests/sim/context.h"

namespace quorate::sim {

class Mail {
 public:
  explicit Mail(Context* context) : context_(context) {}

  // What a process on the machine `from` sends: it arrives when the network says, once, twice or
  // never, at the process that is there then, if it has the store that it is meant for.
  void Send(size_t from, raft::Message message);

 private:
  // A message on its way; its place is used again.
  struct Flight {
    raft::Message message;
    ClusterId cluster;  // the sender's
    size_t from = 0;
    size_t to = 0;
    Micros sent = 0;
  };

  void Fly(Flight flight, Micros at);
  void Land(uint32_t flight);

  Context* const context_;
  std::vector<Flight> flights_;
  std::vector<uint32_t> free_flights_;
};

}  // namespace quorate::sim
