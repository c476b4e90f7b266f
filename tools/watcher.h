// Follows a watch over every endpoint: when a stream ends another one goes on where it ended, at
// the next endpoint. Nothing is missed and nothing is told twice.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "quorate/v1/config.pb.h"
#include "tools/client.h"

namespace quorate::tools {

struct WatcherOptions {
  v1::WatchRequest request;
  // The first stream must begin within this; after that it is tried for ever.
  std::chrono::milliseconds timeout = std::chrono::seconds(10);
  std::chrono::milliseconds retry_delay = std::chrono::milliseconds(200);  // after a whole round
  // A stream that says nothing for so long is given up: it brings a progress mark every 5 s.
  std::chrono::milliseconds silence = std::chrono::seconds(15);
  // Asked several times a second, on any thread, also while no stream can be had: true ends the
  // watch (CANCELLED). Empty: nobody ends it.
  std::function<bool()> stop;
};

class Watcher {
 public:
  // What a stream says; false: enough. Partial messages come as they are, but when the stream
  // breaks within a revision the whole revision comes again: act on it with its last message.
  using Hear = std::function<bool(const v1::WatchResponse&)>;
  // A stream that had begun has ended and another one will be tried, until one begins; `resume` 0:
  // with the state from the beginning.
  using Broken = std::function<void(const CallResult& end, uint64_t resume)>;

  Watcher(Client& client, WatcherOptions options, Hear hear, Broken broken);

  // Until `hear` has enough (OK), `stop` says so (CANCELLED), or for good: a refusal that another
  // node would repeat, another cluster, or no endpoint in time.
  CallResult Run();

 private:
  struct Stream {
    CallResult end;
    bool began = false;   // it said something
    bool enough = false;  // `hear` has enough
  };
  Stream RunStream(Endpoint& endpoint);
  // Notes where to go on.
  void Remember(const v1::WatchResponse& message);

  Client& client_;
  const WatcherOptions options_;
  const Hear hear_;
  const Broken broken_;
  v1::WatchRequest request_;
  bool begun_ = false;  // any stream
  std::string cluster_;
};

}  // namespace quorate::tools
