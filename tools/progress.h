// A progress bar on a terminal; silence everywhere else.
//
// Thread-safe. Redrawn at most ten times a second; lines that are printed beside it go through
// Line().
#pragma once

#include <chrono>
#include <mutex>
#include <ostream>
#include <string>

namespace quorate::tools {

class Progress {
 public:
  // `total` 0: not known, only a count is shown. `visible` false: nothing is ever drawn.
  Progress(std::ostream& err, bool visible, std::string what, uint64_t total);
  ~Progress();  // takes the bar away

  void Add(uint64_t count = 1);
  // A whole line on `err`, above the bar.
  void Line(const std::string& text);

 private:
  using Clock = std::chrono::steady_clock;
  void Draw(Clock::time_point now);  // REQUIRES: mutex_
  void Erase();                      // REQUIRES: mutex_

  std::ostream& err_;
  const bool visible_;
  const std::string what_;
  const uint64_t total_;
  const Clock::time_point start_;
  std::mutex mutex_;
  uint64_t done_ = 0;             // protected by mutex_
  bool drawn_ = false;            // protected by mutex_
  Clock::time_point drawn_at_{};  // protected by mutex_
};

// `import  [=====>    ]  512/1024  50%  230/s  2.2s left`; without a total `export  512  230/s`.
std::string ProgressLine(const std::string& what, uint64_t done, uint64_t total,
                         std::chrono::milliseconds elapsed);

}  // namespace quorate::tools
