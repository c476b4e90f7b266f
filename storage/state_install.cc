#include "storage/state_install.h"

#include <utility>
#include <vector>

#include "base/check.h"
#include "storage/directory.h"
#include "storage/state_copy.h"
#include "storage/state_schema.h"

namespace quorate::storage {
namespace {

constexpr char kUnborn[] = ".new";
constexpr char kGenerationPrefix[] = "state-";

}  // namespace

std::string IncomingState::directory() const {
  return StateDirectory(data_directory_, generation_) + kUnborn;
}

absl::StatusOr<std::unique_ptr<IncomingState>> IncomingState::Begin(
    Disk* disk, const std::string& data_directory, uint64_t in_use, uint64_t bytes) {
  std::unique_ptr<IncomingState> incoming(
      new IncomingState(disk, data_directory, in_use + 1, bytes));
  const std::string directory = incoming->directory();
  // Under its final name, too: complete, but no record has ever named it.
  for (const std::string& left : {directory, StateDirectory(data_directory, in_use + 1)}) {
    if (absl::Status s = disk->RemoveTree(left); !s.ok()) return s;
  }
  if (absl::Status s = disk->MakeDirectory(directory); !s.ok()) return s;
  absl::StatusOr<std::unique_ptr<DiskFile>> file = disk->Create(JoinPath(directory, "state.db"));
  if (!file.ok()) return file.status();
  incoming->file_ = *std::move(file);
  if (absl::Status s = incoming->file_->Allocate(bytes); !s.ok()) return s;
  return incoming;
}

IncomingState::~IncomingState() {
  if (placed_) return;
  file_.reset();
  // What cannot be removed now goes with the next Begin or start.
  disk_->RemoveTree(directory()).IgnoreError();
}

absl::Status IncomingState::Write(uint64_t offset, std::string_view bytes) {
  CHECK(file_ != nullptr, "written to after Finish");
  if (offset != written_) {
    return absl::InvalidArgumentError("bytes of a state at offset " + std::to_string(offset) +
                                      ", and " + std::to_string(written_) + " are there");
  }
  if (bytes.size() > bytes_ - written_) {
    return absl::InvalidArgumentError("a state of more than the " + std::to_string(bytes_) +
                                      " bytes that were announced");
  }
  if (absl::Status s = file_->Write(offset, bytes); !s.ok()) return s;
  written_ += bytes.size();
  return absl::OkStatus();
}

absl::StatusOr<StateCopy> IncomingState::Finish(const ExpectedState& expected,
                                                const std::atomic<bool>& cancel) {
  CHECK(file_ != nullptr, "finished twice");
  const std::unique_ptr<DiskFile> file = std::move(file_);
  if (written_ != bytes_) {
    return absl::DataLossError("a state of " + std::to_string(bytes_) + " bytes was announced, " +
                               std::to_string(written_) + " have come");
  }
  const std::string path = JoinPath(directory(), "state.db");
  absl::StatusOr<StateCopy> copy = VerifyStateFile(path, expected, cancel, disk_);
  if (!copy.ok()) return copy;
  if (absl::Status s = file->Sync(); !s.ok()) return s;
  if (absl::Status s = disk_->SyncDirectory(directory()); !s.ok()) return s;
  const std::string place = StateDirectory(data_directory_, generation_);
  if (absl::Status s = disk_->Rename(directory(), place); !s.ok()) return s;
  placed_ = true;  // whole: what is to be removed has another name from here on
  if (absl::Status s = disk_->SyncDirectory(data_directory_); !s.ok()) return s;
  copy->path = StatePath(data_directory_, generation_);
  return copy;
}

absl::StatusOr<std::unique_ptr<State>> OpenNamedState(StateOptions options, uint64_t named) {
  options.generation = named == 0 ? 1 : named;
  absl::StatusOr<std::unique_ptr<State>> state = State::Open(options);
  if (!absl::IsNotFound(state.status())) return state;
  return DamagedState(StatePath(options.directory, options.generation),
                      "it is missing, and the log says that it is this node's state");
}

absl::Status RemoveOtherGenerations(Disk* disk, const std::string& data_directory, uint64_t keep) {
  absl::StatusOr<std::vector<std::string>> names = disk->List(data_directory);
  if (!names.ok()) return names.status();
  const std::string kept = StateDirectory(data_directory, keep);
  bool removed = false;
  for (const std::string& name : *names) {
    const std::string path = JoinPath(data_directory, name);
    if (!name.starts_with(kGenerationPrefix) || path == kept) continue;
    if (absl::Status s = disk->RemoveTree(path); !s.ok()) return s;
    removed = true;
  }
  return removed ? disk->SyncDirectory(data_directory) : absl::OkStatus();
}

}  // namespace quorate::storage
