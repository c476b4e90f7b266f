#include "tools/cli_lock_speaker.h"

#include <pthread.h>
#include <signal.h>

#include <utility>

namespace quorate::tools {

Speaker::Speaker(std::ostream& out) : out_(out), thread_([this] { Run(); }) {}

Speaker::~Speaker() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void Speaker::Say(std::string text) {
  {
    const std::lock_guard lock(mutex_);
    if (texts_.size() == kTextsMax) texts_.pop_front();
    texts_.push_back(std::move(text));
  }
  changed_.notify_one();
}

void Speaker::Run() {
  // Behind `stty tostop` a terminal stops the whole process when it writes from the background,
  // unless the thread that writes blocks this (termios(3), TOSTOP).
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTTOU);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ends_ || !texts_.empty(); });
    if (texts_.empty()) return;
    const std::string text = std::move(texts_.front());
    texts_.pop_front();
    lock.unlock();
    out_ << text << std::flush;
    lock.lock();
  }
}

}  // namespace quorate::tools
