// Says things to people for somebody who must not wait for them: whoever writes into a pipe that
// nobody reads is held up for as long as the reader likes.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <ostream>
#include <string>
#include <thread>

namespace quorate::tools {

class Speaker {
 public:
  // Nobody else writes to `out` while this one lives.
  explicit Speaker(std::ostream& out);
  // Waits until everything is said.
  ~Speaker();
  Speaker(const Speaker&) = delete;
  Speaker& operator=(const Speaker&) = delete;

  // Any thread; never waits for a reader. When kTextsMax wait to be said the oldest is not.
  static constexpr size_t kTextsMax = 32;
  void Say(std::string text);

 private:
  void Run();

  std::ostream& out_;
  std::mutex mutex_;  // protects what follows
  std::condition_variable changed_;
  bool ends_ = false;
  std::deque<std::string> texts_;
  std::thread thread_;  // constant after construction
};

}  // namespace quorate::tools
