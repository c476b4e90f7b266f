// A few threads for reads: SQLite blocks, and gRPC's threads must not.
//
// Every method may be called from any thread.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace quorate::services {

class ReadPool {
 public:
  ReadPool(size_t threads, size_t queue_max);
  ~ReadPool();  // Stop()s

  // False when the queue is full or the pool has stopped: `task` will not run.
  bool Submit(std::function<void()> task);
  // Runs what is queued, then ends the threads.
  void Stop();

 private:
  void Run();

  const size_t queue_max_;

  std::mutex mutex_;  // protects what follows
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool stopped_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace quorate::services
