#include "storage/log_store.h"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

namespace quorate::storage {
namespace {

[[noreturn]] void Die(const char* doing, const absl::Status& status) {
  std::fprintf(stderr,
               "FATAL: %s the log failed: %s; the process ends, because what it would acknowledge "
               "next might not be durable\n",
               doing, status.ToString().c_str());
  std::fflush(stderr);
  std::_Exit(1);
}

}  // namespace

void LogStore::Append(const raft::Persist& persist) {
  absl::Status status = log_->Append(persist);
  if (!status.ok()) Die("writing", status);
}

void LogStore::Sync() {
  absl::Status status = log_->Sync();
  if (!status.ok()) Die("flushing", status);
}

std::vector<raft::EntryPtr> LogStore::Read(raft::Index from, raft::Index last, size_t bytes) {
  absl::StatusOr<std::vector<raft::EntryPtr>> entries = log_->Read(from, last, bytes);
  if (!entries.ok()) Die("reading", entries.status());
  return *std::move(entries);
}

void LogStore::Cut(raft::Index through) {
  const absl::StatusOr<raft::Index> first = log_->CutPrefix(through, 0);
  if (!first.ok()) Die("cutting", first.status());
}

void LogStore::WriteMark() {
  absl::Status status = log_->WriteMark();
  if (!status.ok()) Die("marking", status);
}

}  // namespace quorate::storage
