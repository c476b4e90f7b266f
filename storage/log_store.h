// The log as the driver's port (raft/ports.h): the same calls, but failure is not an answer.
//
// A log that cannot be written, flushed or read back leaves the process with promises that it
// cannot keep, so the process ends here, at once: one line on stderr that begins with FATAL, exit
// status 1, no destructors (they might send or write). It is never retried.
//
// Threads: as Log says.
#pragma once

#include <memory>
#include <vector>

#include "raft/ports.h"
#include "storage/log.h"

namespace quorate::storage {

class LogStore final : public raft::LogStore {
 public:
  explicit LogStore(std::unique_ptr<Log> log) : log_(std::move(log)) {}

  void Append(const raft::Persist& persist) override;
  void Sync() override;
  std::vector<raft::EntryPtr> Read(raft::Index from, raft::Index last, size_t bytes) override;
  void Cut(raft::Index through) override;
  raft::Index TailStart(uint64_t bytes) override { return log_->TailStart(bytes); }
  bool WantsMark() override { return log_->WantsMark(); }
  void WriteMark() override;

 private:
  const std::unique_ptr<Log> log_;
};

}  // namespace quorate::storage
