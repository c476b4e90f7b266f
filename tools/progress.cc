#include "tools/progress.h"

#include <algorithm>

#include "tools/text.h"

namespace quorate::tools {

using std::chrono::milliseconds;

Progress::Progress(std::ostream& err, bool visible, std::string what, uint64_t total)
    : err_(err), visible_(visible), what_(std::move(what)), total_(total), start_(Clock::now()) {}

Progress::~Progress() {
  const std::lock_guard lock(mutex_);
  Erase();
}

void Progress::Add(uint64_t count) {
  const std::lock_guard lock(mutex_);
  done_ += count;
  if (!visible_) return;
  const auto now = Clock::now();
  if (now - drawn_at_ >= milliseconds(100)) Draw(now);
}

void Progress::Line(const std::string& text) {
  const std::lock_guard lock(mutex_);
  Erase();
  err_ << text << '\n' << std::flush;
}

void Progress::Draw(Clock::time_point now) {
  err_ << "\r\x1b[K"
       << ProgressLine(what_, done_, total_, std::chrono::duration_cast<milliseconds>(now - start_))
       << std::flush;
  drawn_ = true;
  drawn_at_ = now;
}

void Progress::Erase() {
  if (!drawn_) return;
  err_ << "\r\x1b[K" << std::flush;
  drawn_ = false;
}

std::string ProgressLine(const std::string& what, uint64_t done, uint64_t total,
                         milliseconds elapsed) {
  const auto ms = static_cast<uint64_t>(std::max<int64_t>(elapsed.count(), 1));
  const uint64_t rate = done * 1000 / ms;
  std::string line = what + "  ";
  if (total > 0) {
    constexpr size_t kBar = 24;
    const uint64_t shown = std::min(done, total);
    const auto filled = static_cast<size_t>(shown * kBar / total);
    std::string bar(filled, '=');
    if (filled < kBar) bar += '>';
    bar.resize(kBar, ' ');
    line += "[" + bar + "]  " + std::to_string(done) + "/" + std::to_string(total) + "  " +
            std::to_string(shown * 100 / total) + "%";
  } else {
    line += std::to_string(done);
  }
  line += "  " + std::to_string(rate) + "/s";
  if (total > done && done > 0) {
    line += "  " + FormatDuration(milliseconds((total - done) * ms / done)) + " left";
  }
  return line;
}

}  // namespace quorate::tools
