// What goes the way of a client's write, which any node sees through: compaction, in pieces, and
// settings.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <utility>

#include "services/cluster_changes.h"
#include "services/cluster_changes_op.h"
#include "services/errors.h"
#include "services/forwarder.h"
#include "storage/state.h"

namespace quorate::services {
namespace {

// A piece of a compaction: some ten milliseconds of the apply thread.
constexpr uint64_t kCompactRows = 2000;
constexpr uint64_t kCompactBytes = 1 << 20;
// Page tokens are asked about before each piece; only so often where that takes longer, as with a
// member that does not answer.
constexpr Duration kPinsQuick = std::chrono::milliseconds(50);
constexpr Duration kPinsInterval = std::chrono::seconds(1);

}  // namespace

std::optional<ingress::Outcome> ClusterChanges::Write(const OpPtr& op, const v1::Command& command) {
  ingress::WriteId id;
  auto outcome = Op::Await<ingress::Outcome>(op, [&](auto done) {
    id = ports_.write(command, op->ends, op->call->metadata(), std::move(done));
  });
  if (!outcome) {
    (void)ports_.cancel(id);
    op->maybe_done = true;
  }
  return outcome;
}

// --- Compaction ---

ClusterChanges::Try ClusterChanges::Compact(const OpPtr& op) {
  const auto& request = std::get<v1::CompactRequest>(op->request);
  v1::Command command;
  command.mutable_compact_history()->set_revision(request.revision());
  command.mutable_compact_history()->set_rows_max(kCompactRows);
  command.mutable_compact_history()->set_bytes_max(kCompactBytes);
  uint64_t reached = 0;
  std::set<StoreId> silent;
  Instant pins_at;
  while (op->Wanted()) {
    if (const Instant before = BootNow(); !request.force() && before >= pins_at) {
      grpc::Status pinned = CheckPins(op, request.revision(), reached, &silent);
      if (!op->Wanted()) break;
      if (!pinned.ok()) return Answered(std::move(pinned));
      const Instant now = BootNow();
      pins_at = now - before < kPinsQuick ? now : now + kPinsInterval;
    }
    const auto outcome = Write(op, command);
    if (!outcome) break;
    v1::Answer answer;
    grpc::Status status = StatusOf(*outcome, &answer);
    if (outcome->kind == ingress::Outcome::Kind::kUnknown) op->maybe_done = true;
    // A piece may be done twice.
    if (!status.ok() && op->maybe_done &&
        (!Final(*op, status) || status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED)) {
      op->Pause(kChangeRetryDelay);
      continue;
    }
    if (!status.ok()) return Answered(std::move(status));
    op->maybe_done = true;  // a piece is
    const auto found = answer.metadata().find("compacted_revision");
    if (found != answer.metadata().end()) {
      reached = std::strtoull(found->second.c_str(), nullptr, 10);
    }
    if (!answer.succeeded()) continue;
    v1::CompactResponse response;
    *response.mutable_header() = HeaderOf(ports_.view());
    response.mutable_header()->set_revision(answer.revision());
    response.set_compacted_revision(reached != 0 ? reached : request.revision());
    return Answered(grpc::Status::OK, response.SerializeAsString());
  }
  return Unfinished(*op);
}

// --- Settings ---

// Such a member would end when it has to apply that command, and again at each start (or, of new
// members, take nothing any more from the leader): with a majority of them this call would be an
// outage. Who does not answer is not waited for: what is set must be taken back while a node is
// down, too.
std::optional<grpc::Status> ClusterChanges::CheckBuilds(
    const OpPtr& op, const std::function<bool(const v1::IdentifyResponse&)>& understands) {
  const ClusterView view = ports_.view();
  const auto answers =
      AskAll(op, view.node->membership->members, view, [](StoreId) { return false; });
  for (const auto& [store, answer] : answers) {
    if (understands(answer)) continue;
    return MakeError(grpc::StatusCode::FAILED_PRECONDITION, ingress::kReasonNotUnderstood,
                     answer.name() +
                         " runs an older build, which does not understand this: finish the "
                         "upgrade first",
                     {{"node_id", answer.name()}});
  }
  return std::nullopt;
}

ClusterChanges::Try ClusterChanges::SetSettings(const OpPtr& op) {
  const auto& request = std::get<v1::SetSettingsRequest>(op->request);
  v1::Command command;
  command.mutable_set_settings()->set_leases(request.leases());
  const uint32_t needed = ingress::FormatOf(command);
  std::optional<grpc::Status> refused =
      CheckBuilds(op, [needed](const auto& answer) { return answer.command_format() >= needed; });
  if (!op->Wanted()) return Unfinished(*op);
  if (refused) return Answered(*std::move(refused));
  const auto outcome = Write(op, command);
  if (!outcome) return Unfinished(*op);
  v1::Answer answer;
  grpc::Status status = StatusOf(*outcome, &answer);
  if (!status.ok()) return Answered(std::move(status));
  const auto leases = answer.metadata().find(storage::kLeasesSetting);
  const bool on = leases != answer.metadata().end() && leases->second == "on";
  // The leader may have answered before this node has applied it; whoever asks here next should
  // find it so. Not for long: somebody else may have set it back.
  ClusterView view = ports_.view();
  for (const Instant until = BootNow() + kChangeShowWait;
       view.state && view.state->leases != on && BootNow() < until && op->Wanted();) {
    op->Pause(std::chrono::milliseconds(1));
    view = ports_.view();
  }
  v1::SetSettingsResponse response;
  *response.mutable_header() = HeaderOf(view);
  response.mutable_header()->set_revision(answer.revision());
  response.mutable_settings()->set_leases(on);
  return Answered(grpc::Status::OK, response.SerializeAsString());
}

}  // namespace quorate::services
