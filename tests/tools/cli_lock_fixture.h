// `quorate lock` and `quorate elect` within the test's process, against a node that keeps
// time-to-lives as it is told.
#pragma once

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <mutex>
#include <ostream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "services/errors.h"
#include "tests/tools/ttl_node.h"
#include "tools/cli.h"

namespace quorate::tools {

struct RanLock {
  int exit;
  std::string out;
  std::string err;
};

// A pipe that is read at once, or not at all. Any thread.
class PipeBuffer final : public std::streambuf {
 public:
  void Block(bool blocked) {
    {
      const std::lock_guard lock(mutex_);
      blocked_ = blocked;
    }
    changed_.notify_all();
  }
  std::string text() {
    const std::lock_guard lock(mutex_);
    return text_;
  }
  bool Has(const std::string& part) { return text().find(part) != std::string::npos; }

 protected:
  std::streamsize xsputn(const char* bytes, std::streamsize size) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !blocked_; });
    text_.append(bytes, static_cast<size_t>(size));
    return size;
  }
  int overflow(int c) override {
    const char byte = static_cast<char>(c);
    return xsputn(&byte, 1) == 1 ? c : EOF;
  }

 private:
  std::mutex mutex_;  // protects what follows
  std::condition_variable changed_;
  bool blocked_ = false;
  std::string text_;
};

class CliLock : public testing::Test {
 protected:
  CliLock() { std::filesystem::remove(file_); }
  ~CliLock() override {
    std::filesystem::remove(file_);
    std::filesystem::remove(file_ + ".go");
  }

  RanLock Quorate(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(),
                     {"quorate", "--endpoints", node_.address(), "--timeout", "5s"});
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::istringstream in;
    std::ostringstream out;
    std::ostream err(&err_);
    Io io{in, out, err};
    const int exit = tools::Run(static_cast<int>(argv.size()), argv.data(), io);
    done_ = true;
    return {exit, out.str(), err_.text()};
  }
  // Runs `script` by a shell while holding "job"; $F is the file.
  RanLock Lock(const std::string& script, std::vector<std::string> flags = {}) {
    std::vector<std::string> arguments = {"lock", "job"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    arguments.insert(arguments.end(), {"--", "/bin/sh", "-c", "F=" + file_ + "; " + script});
    return Quorate(arguments);
  }
  std::string Written() const {
    std::ifstream file(file_);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // What a script may wait for: [ -e $F.go ].
  void Go() const { std::ofstream(file_ + ".go") << "go"; }
  void Await(const std::function<bool()>& is_so) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!is_so()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  // It ends by itself now; otherwise that is a failure, and it is made to.
  void AwaitDone() {
    Await([this] { return done_.load(); });
    if (done_) return;
    Go();
    node_.RefuseRenewals(
        services::MakeError(grpc::StatusCode::NOT_FOUND, "TTL_NOT_FOUND", "the test is over"));
  }

  TtlNode node_;
  PipeBuffer err_;
  std::atomic<bool> done_ = false;
  const std::string file_ = testing::TempDir() + "/quorate-lock-test-" + std::to_string(getpid());
};

}  // namespace quorate::tools
