#include "services/snapshot_sender.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "services/logging.h"
#include "services/peer_codec.h"
#include "storage/crc32c.h"

namespace quorate::services {
namespace {

class File {
 public:
  explicit File(const std::string& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  bool ok() const { return fd_ >= 0; }
  // Fills `out`, or fails.
  bool Read(std::string* out) {
    size_t done = 0;
    while (done < out->size()) {
      const ssize_t n = ::read(fd_, out->data() + done, out->size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      done += static_cast<size_t>(n);
    }
    return true;
  }

 private:
  const int fd_;
};

// Takes the copy away again, however the transfer ends.
class Removed {
 public:
  explicit Removed(std::string path) : path_(std::move(path)) {}
  ~Removed() { ::unlink(path_.c_str()); }
  Removed(const Removed&) = delete;
  Removed& operator=(const Removed&) = delete;

 private:
  const std::string path_;
};

}  // namespace

SnapshotSender::SnapshotSender(const SnapshotSenderOptions& options, storage::State* state,
                               PeerChannels* channels)
    : options_(options), state_(state), channels_(channels) {}
SnapshotSender::~SnapshotSender() { Stop(); }

void SnapshotSender::Start(raft::Node* node) {
  CHECK(node_ == nullptr, "a sender is started once");
  node_ = node;
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "snapout");
    Run();
  });
}

void SnapshotSender::Stop() {
  if (stopping_.exchange(true)) return;
  cancel_ = true;
  {
    std::lock_guard lock(mutex_);
    if (call_ != nullptr) call_->TryCancel();
  }
  requests_.Close();
  if (thread_.joinable()) thread_.join();
}

void SnapshotSender::Send(const raft::SnapshotRequest& request) { requests_.Push(request); }

void SnapshotSender::OnStatusChange(const raft::NodeStatus& status) {
  std::lock_guard lock(mutex_);
  if (!term_ || (status.role == raft::Role::kLeader && status.term == term_)) return;
  cancel_ = true;
  if (call_ != nullptr) call_->TryCancel();
}

bool SnapshotSender::Leads(raft::Term term) const {
  const auto status = node_->status();
  return status->role == raft::Role::kLeader && status->term == term;
}

void SnapshotSender::Run() {
  while (requests_.Wait(std::nullopt)) {
    const std::optional<raft::SnapshotRequest> request = requests_.TakeOne();
    if (!request || stopping_) continue;
    {
      std::lock_guard lock(mutex_);
      term_ = request->term;
      cancel_ = stopping_.load();
    }
    const absl::Status status = SendOne(*request);
    {
      std::lock_guard lock(mutex_);
      term_ = raft::Term();
    }
    if (status.ok()) continue;
    ++failed_;
    if (!stopping_) {
      LogWarning("a snapshot could not be sent; it is tried again while the peer needs one",
                 {{"peer_store", request->peer}, {"error", std::string(status.message())}});
      node_->SnapshotFailed(*request);
    }
  }
}

absl::Status SnapshotSender::SendOne(const raft::SnapshotRequest& request) {
  if (!Leads(request.term)) return absl::CancelledError("this node no longer leads");
  const std::string path = absl::StrCat(options_.directory, "/outgoing.db");
  const absl::StatusOr<storage::StateCopy> copy = state_->Copy(path, cancel_);
  if (!copy.ok()) return copy.status();
  const Removed removed(path);
  LogInfo("sends a snapshot",
          {{"peer_store", request.peer}, {"index", copy->index}, {"bytes", copy->bytes}});
  return Stream(request, *copy);
}

absl::Status SnapshotSender::Stream(const raft::SnapshotRequest& request,
                                    const storage::StateCopy& copy) {
  const PeerChannels::Stub stub = channels_->For(request.peer, PeerChannels::Kind::kSnapshot);
  if (stub == nullptr) return absl::UnavailableError("the peer's address is not known");
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + options_.time_min +
                       std::chrono::seconds(copy.bytes / options_.bytes_per_second_min));
  {
    std::lock_guard lock(mutex_);
    if (cancel_) return absl::CancelledError("cancelled");
    call_ = &context;
  }
  v1::InstallSnapshotResponse response;
  auto writer = stub->InstallSnapshot(&context, &response);
  const v1::PeerHeader header = MakeHeader(options_.cluster, options_.self, request.peer);
  raft::InstallSnapshot message;
  message.term = request.term;
  message.snapshot = {copy.index, copy.term, copy.log_time_ms, copy.membership_index,
                      copy.membership};
  v1::InstallSnapshotRequest begin;
  *begin.mutable_header() = header;
  ToProto(message, begin.mutable_begin());
  begin.mutable_begin()->set_total_bytes(copy.bytes);
  begin.mutable_begin()->set_state_hash(copy.hash.data(), copy.hash.size());
  absl::Status written;
  if (writer->Write(begin)) written = WriteFile(copy, header, writer.get());
  if (!written.ok()) context.TryCancel();
  writer->WritesDone();
  // The peer's answer; also early, when it does not want the bytes.
  const grpc::Status status = writer->Finish();
  {
    std::lock_guard lock(mutex_);
    call_ = nullptr;
  }
  if (!written.ok()) return written;
  if (!status.ok()) return absl::UnavailableError(status.error_message());
  const auto reply = FromProto(response);
  if (!reply || !CheckHeader(response.header(), {options_.cluster, options_.self}).ok() ||
      StoreId(response.header().from_store()) != request.peer) {
    return absl::UnavailableError("the peer's answer makes no sense");
  }
  if (reply->answer == raft::SnapshotAnswer::kInstalled) {
    ++sent_;
    LogInfo("a snapshot is installed", {{"peer_store", request.peer}, {"index", reply->index}});
  }
  if (!node_->Receive({request.peer, options_.self, *reply})) {
    return absl::UnavailableError("this node is overloaded");
  }
  return absl::OkStatus();
}

// OK also when the peer has answered early and takes no more. An error: of this node's own file.
absl::Status SnapshotSender::WriteFile(const storage::StateCopy& copy, const v1::PeerHeader& header,
                                       grpc::ClientWriter<v1::InstallSnapshotRequest>* writer) {
  File file(copy.path);
  if (!file.ok()) return absl::UnavailableError("the copy cannot be opened");
  v1::InstallSnapshotRequest request;
  *request.mutable_header() = header;
  uint32_t whole = 0;
  for (uint64_t offset = 0; offset < copy.bytes;) {
    v1::SnapshotChunk* const chunk = request.mutable_chunk();
    std::string* const data = chunk->mutable_data();
    data->resize(std::min<uint64_t>(kSnapshotChunkBytes, copy.bytes - offset));
    if (!file.Read(data)) {
      return absl::UnavailableError(absl::StrCat("the copy cannot be read at ", offset));
    }
    chunk->set_offset(offset);
    chunk->set_crc32c(storage::Crc32c(*data));
    whole = storage::Crc32c(*data, whole);
    if (!writer->Write(request)) return absl::OkStatus();
    offset += data->size();
    bytes_ += data->size();
  }
  request.mutable_end()->set_crc32c(whole);
  writer->Write(request);
  return absl::OkStatus();
}

}  // namespace quorate::services
