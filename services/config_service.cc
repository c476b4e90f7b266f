#include "services/config_service.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "services/errors.h"
#include "services/forwarder.h"
#include "services/page_token.h"
#include "services/read_errors.h"
#include "services/request_parser.h"
#include "services/validate.h"

namespace quorate::services {
namespace {

constexpr Duration kConfigRetryDelay = std::chrono::milliseconds(200);
// Without a leader a linearizable read asks again after this.
constexpr Duration kIndexRetryDelay = std::chrono::milliseconds(20);
// A question that is to be answered so soon does not wait for the next Tick of an idle node.
constexpr Duration kAnswerSoon = std::chrono::milliseconds(200);
constexpr Duration kDeadlineSlack = std::chrono::milliseconds(5);
// This build restores nothing.
constexpr uint64_t kRestores = 0;

std::optional<raft::ReadMode> ModeOf(v1::Consistency consistency) {
  switch (consistency) {
    case v1::CONSISTENCY_LEASE:
      return raft::ReadMode::kLease;
    case v1::CONSISTENCY_LINEARIZABLE:
      return raft::ReadMode::kRound;
    default:
      return std::nullopt;
  }
}

std::optional<Duration> MaxStaleness(const v1::ReadOptions& read) {
  if (!read.has_max_staleness()) return std::nullopt;
  return std::chrono::seconds(read.max_staleness().seconds()) +
         std::chrono::microseconds(read.max_staleness().nanos() / 1000);
}

void FillItem(storage::Item item, bool keys_only, v1::Item* out) {
  out->set_key(std::move(item.key));
  if (!keys_only) {
    if (item.is_text) {
      out->set_text(std::move(item.value));
    } else {
      out->set_data(std::move(item.value));
    }
  }
  out->set_create_revision(item.create_revision.value());
  out->set_mod_revision(item.mod_revision.value());
  out->set_version(item.version);
  if (item.ttl != 0) out->set_ttl_id(ToHex(item.ttl));
}

std::optional<Revision> AtRevision(const v1::ReadOptions& read) {
  if (read.at_revision() == 0) return std::nullopt;
  return Revision(read.at_revision());
}

// What the state machine's readers say, as clients are told. `at`: the revision that was asked for.
grpc::Status ReadError(const absl::Status& status, std::optional<Revision> at = std::nullopt,
                       Revision revision = Revision()) {
  const std::string message(status.message());
  switch (status.code()) {
    case absl::StatusCode::kOutOfRange:
      if (at && *at > revision) {
        return MakeError(grpc::StatusCode::OUT_OF_RANGE, "REVISION_IN_FUTURE",
                         "read.at_revision: " + message,
                         {{"field", "read.at_revision"}, {"revision", ToString(revision)}});
      }
      return MakeError(grpc::StatusCode::OUT_OF_RANGE, "REVISION_COMPACTED", message);
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kUnavailable:
      return MakeError(grpc::StatusCode::UNAVAILABLE, "READERS_BUSY",
                       message + "; try again or ask another node", {}, kConfigRetryDelay);
    default:
      return MakeError(grpc::StatusCode::INTERNAL, "READ_FAILED", message);
  }
}

// What a header would say, for an answer that has none.
ErrorMetadata Freshness(uint64_t revision, std::optional<Instant> fresh_as_of, Instant now) {
  std::string age = "unknown";
  if (fresh_as_of) {
    const Duration exact = std::max(now - *fresh_as_of, Duration::zero());
    age = std::to_string(std::chrono::ceil<std::chrono::milliseconds>(exact).count());
  }
  return {{"revision", std::to_string(revision)}, {"staleness_ms", age}};
}

// The place behind which a history goes on, as a token holds it.
grpc::Status HistoryPlace(const PageToken& token, uint64_t* before) {
  const char* end = token.after.data() + token.after.size();
  const auto [parsed, error] = std::from_chars(token.after.data(), end, *before);
  if (error == std::errc() && parsed == end && *before != 0) return grpc::Status::OK;
  return MakeFieldError("PAGE_TOKEN_INVALID", "page_token",
                        "is of another version of Quorate; begin again without it");
}

void FillHistory(storage::HistoryPage page, Revision shown, ClusterId cluster, uint64_t shape,
                 v1::HistoryResponse* response) {
  response->mutable_header()->set_revision(shown.value());
  if (page.more) {
    CHECK(!page.items.empty());
    response->set_next_page_token(
        EncodePageToken({.cluster = cluster,
                         .restores = kRestores,
                         .revision = shown,
                         .shape = shape,
                         .after = std::to_string(page.items.back().place)}));
  }
  for (storage::HistoryItem& change : page.items) {
    v1::HistoryEntry* entry = response->add_entries();
    entry->set_deleted(change.deleted);
    entry->set_author(std::move(change.author));
    entry->set_note(std::move(change.note));
    entry->set_time_ms(change.wall_time_ms);
    FillItem(std::move(change.item), change.deleted, entry->mutable_item());
  }
}

// What the metrics count when nobody waits any more. gRPC cancels a call whose deadline has passed,
// too; its timer may run a little ahead of the deadline that we derived.
grpc::Status CallerGone(Instant deadline, Instant now, std::string_view reason) {
  if (now + kDeadlineSlack < deadline) {
    return grpc::Status(grpc::StatusCode::CANCELLED, "the caller went away");
  }
  return MakeError(grpc::StatusCode::DEADLINE_EXCEEDED, reason,
                   "the deadline passed before the answer was there");
}

grpc::Status ShuttingDown() {
  return MakeError(grpc::StatusCode::UNAVAILABLE, "SHUTTING_DOWN", "this node is stopping", {},
                   kConfigRetryDelay);
}

grpc::Status NotConfirmed() {
  return MakeError(grpc::StatusCode::UNAVAILABLE, "NO_LEADER",
                   "no leader has confirmed before the deadline that this read would show "
                   "everything acknowledged; try again, or read with consistency LOCAL",
                   {}, kConfigRetryDelay);
}

grpc::Status TooManyReads() {
  return MakeError(grpc::StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_READS",
                   "this node has too many reads waiting; try again or ask another", {},
                   kConfigRetryDelay);
}

}  // namespace

v1::ResponseHeader MakeResponseHeader(const std::string& node_id, ClusterId cluster,
                                      const raft::NodeStatus& status) {
  v1::ResponseHeader header;
  if (cluster) header.set_cluster_id(ToHex(cluster));
  header.set_node_id(node_id);
  header.set_term(status.term.value());
  if (status.leader && status.membership != nullptr) {
    const raft::Member* leader = status.membership->Find(status.leader);
    if (leader != nullptr) header.set_leader_id(leader->name);
  }
  return header;
}

struct ConfigService::Read {
  CallPtr call;
  CallDone done;
  ReadWish wish;
  std::shared_ptr<const ConfigBackend> backend;
  // The response and its header within; `execute` reads into it, on the pool.
  std::shared_ptr<google::protobuf::Message> response;
  std::function<v1::ResponseHeader*()> header;
  // The answer shows a revision that was chosen before: there is no age of it.
  bool pinned = false;
  std::function<grpc::Status(const storage::ReadLimits&)> execute;
  // Set: a read index is needed, got in this way.
  std::optional<raft::ReadMode> mode;
  Instant ask_index_at;                       // not before
  std::optional<AskedReads::iterator> asked;  // its question is under way; the service's mutex
  std::optional<Instant> lease_until;         // its index came by this node's own lease
};

ConfigService::ConfigService(std::string node_id, ReadPool* pool, std::function<Instant()> now)
    : node_id_(std::move(node_id)),
      pool_(pool),
      now_(std::move(now)),
      ttl_keeper_([this](v1::Command command, CallPtr call, CallDone call_done,
                         TtlKeeper::TakeAnswer take) {
        Write(std::move(command), std::move(call), std::move(call_done), std::move(take));
      }) {}

ConfigService::~ConfigService() { Stop(); }

void ConfigService::SetBackend(std::shared_ptr<const ConfigBackend> backend) {
  std::lock_guard lock(mutex_);
  CHECK(backend_ == nullptr);
  backend_ = std::move(backend);
}

std::shared_ptr<const ConfigBackend> ConfigService::backend() const {
  std::lock_guard lock(mutex_);
  return backend_;
}

void ConfigService::Handle(std::string_view method, std::string request, CallPtr call,
                           CallDone done) {
  if (method == "Get") return Get(request, std::move(call), std::move(done));
  if (method == "List") return List(request, std::move(call), std::move(done));
  if (method == "History") return History(request, std::move(call), std::move(done));
  if (method == "GrantTtl") return GrantTtl(request, std::move(call), std::move(done));
  if (method == "RevokeTtl") return RevokeTtl(request, std::move(call), std::move(done));
  if (method == "KeepAliveTtl") return KeepAliveTtl(request, std::move(call), std::move(done));
  if (IsWrite(method)) return HandleWrite(method, request, std::move(call), std::move(done));
  done(MakeUnimplemented("quorate.v1.Config/" + std::string(method)), "");
}

// --- Reads ---

void ConfigService::Get(const std::string& bytes, CallPtr call, CallDone done) {
  v1::GetRequest request;
  grpc::Status status = ParseRequest(bytes, &request);
  if (status.ok()) status = Validate(request);
  if (!status.ok()) return done(std::move(status), "");

  auto response = std::make_shared<v1::GetResponse>();
  auto read = std::make_shared<Read>();
  read->header = [response = response.get()] { return response->mutable_header(); };
  read->backend = backend();
  const std::optional<Revision> at = AtRevision(request.read());
  read->pinned = at.has_value();
  read->execute = [backend = read->backend, response = response.get(), key = request.key(),
                   at](const storage::ReadLimits& limits) -> grpc::Status {
    auto [item, revision] = backend->state->Get(key, at, limits);
    response->mutable_header()->set_revision(at.value_or(revision).value());
    if (absl::IsNotFound(item.status())) {
      return MakeError(grpc::StatusCode::NOT_FOUND, "KEY_NOT_FOUND", "key: there is no such key",
                       {{"key", key}});
    }
    if (!item.ok()) return ReadError(item.status(), at, revision);
    FillItem(*std::move(item), false, response->mutable_item());
    return grpc::Status::OK;
  };
  read->response = std::move(response);
  read->call = std::move(call);
  read->done = std::move(done);
  StartRead(std::move(read), request.read());
}

void ConfigService::List(const std::string& bytes, CallPtr call, CallDone done) {
  v1::ListRequest request;
  grpc::Status status = ParseRequest(bytes, &request);
  if (status.ok()) status = Validate(request);
  if (!status.ok()) return done(std::move(status), "");

  auto response = std::make_shared<v1::ListResponse>();
  auto read = std::make_shared<Read>();
  read->header = [response = response.get()] { return response->mutable_header(); };
  read->backend = backend();

  const uint64_t shape = ListingShape(request.prefix(), request.keys_only());
  PageToken token;
  if (!request.page_token().empty() && read->backend != nullptr) {
    status =
        DecodePageToken(request.page_token(), read->backend->cluster, kRestores, shape, &token);
    if (!status.ok()) return done(std::move(status), "");
    read->wish.revision = token.revision;
  }
  const std::optional<Revision> at =
      token.revision ? std::optional(token.revision) : AtRevision(request.read());
  read->pinned = at.has_value();
  read->execute = [this, backend = read->backend, response = response.get(), request,
                   token = std::move(token), at,
                   shape](const storage::ReadLimits& limits) -> grpc::Status {
    if (request.count_only()) {
      const auto count = backend->state->Count(request.prefix(), at, limits);
      if (!count.ok()) {
        return ReadError(count.status(), at, backend->state->Summary().revision);
      }
      response->set_count(count->first);
      response->mutable_header()->set_revision(at.value_or(count->second).value());
      return grpc::Status::OK;
    }
    storage::ListQuery query;
    query.prefix = request.prefix();
    query.after = token.after;
    query.at = at;
    query.items_max = request.page_size() == 0 ? kPageItemsMax : request.page_size();
    query.bytes_max = kPageBytesMax;
    query.keys_only = request.keys_only();
    absl::StatusOr<storage::ListPage> page = backend->state->List(query, limits);
    if (!page.ok()) return ReadError(page.status(), at, backend->state->Summary().revision);
    const Revision shown = at.value_or(page->revision);
    response->mutable_header()->set_revision(shown.value());
    if (page->more) {
      CHECK(!page->items.empty());
      pins_.Note(shown, now_());
      response->set_next_page_token(EncodePageToken({.cluster = backend->cluster,
                                                     .restores = kRestores,
                                                     .revision = shown,
                                                     .shape = shape,
                                                     .after = page->items.back().key}));
    }
    for (storage::Item& item : page->items) {
      FillItem(std::move(item), query.keys_only, response->add_items());
    }
    return grpc::Status::OK;
  };
  read->response = std::move(response);
  read->call = std::move(call);
  read->done = std::move(done);
  StartRead(std::move(read), request.read());
}

void ConfigService::History(const std::string& bytes, CallPtr call, CallDone done) {
  v1::HistoryRequest request;
  grpc::Status status = ParseRequest(bytes, &request);
  if (status.ok()) status = Validate(request);
  if (!status.ok()) return done(std::move(status), "");

  auto response = std::make_shared<v1::HistoryResponse>();
  auto read = std::make_shared<Read>();
  read->header = [response = response.get()] { return response->mutable_header(); };
  read->backend = backend();
  const uint64_t shape = HistoryShape(request.key());
  PageToken token;
  storage::HistoryQuery query;
  if (!request.page_token().empty() && read->backend != nullptr) {
    status =
        DecodePageToken(request.page_token(), read->backend->cluster, kRestores, shape, &token);
    if (status.ok()) status = HistoryPlace(token, &query.before);
    if (!status.ok()) return done(std::move(status), "");
    read->wish.revision = token.revision;
  }
  query.key = request.key();
  query.at = AtRevision(request.read());
  query.items_max = request.page_size() == 0 ? kPageItemsMax : request.page_size();
  query.bytes_max = kPageBytesMax;
  read->pinned = token.revision || query.at;
  read->execute = [this, backend = read->backend, response = response.get(),
                   query = std::move(query), token = std::move(token),
                   shape](const storage::ReadLimits& limits) -> grpc::Status {
    absl::StatusOr<storage::HistoryPage> page = backend->state->History(query, limits);
    if (!page.ok()) {
      return ReadError(page.status(), query.at, backend->state->Summary().revision);
    }
    if (page->items.empty() && query.before == 0) {
      return MakeError(grpc::StatusCode::NOT_FOUND, "KEY_NOT_FOUND",
                       "key: there is no history of this key", {{"key", query.key}});
    }
    const Revision shown = token.revision ? token.revision : query.at.value_or(page->revision);
    if (page->more) pins_.Note(shown, now_());
    FillHistory(*std::move(page), shown, backend->cluster, shape, response);
    return grpc::Status::OK;
  };
  read->response = std::move(response);
  read->call = std::move(call);
  read->done = std::move(done);
  StartRead(std::move(read), request.read());
}

void ConfigService::StartRead(ReadPtr read, const v1::ReadOptions& options) {
  read->wish.arrived = now_();
  read->wish.deadline = read->call->deadline();
  read->wish.max_staleness = MaxStaleness(options);
  read->wish.min_revision = Revision(options.min_revision());
  read->mode = ModeOf(options.consistency());
  read->ask_index_at = read->wish.arrived;
  // A store that has never caught up does not know what is set: it says that instead.
  const bool lease = read->mode == raft::ReadMode::kLease;
  if (lease && read->backend != nullptr && read->backend->caught_up_once() &&
      !read->backend->state->leases()) {
    return read->done(
        MakeError(
            grpc::StatusCode::FAILED_PRECONDITION, "LEASES_OFF",
            "read.consistency LEASE: leases are off in this cluster (Cluster.SetSettings); ask for "
            "LINEARIZABLE, which costs one round of messages to a majority instead",
            {{"field", "read.consistency"}}),
        "");
  }
  Judge(read);
}

// --- Read indexes ---

void ConfigService::AskIndex(const ReadPtr& read, bool wake) {
  const Instant now = now_();
  const Instant last_moment = LastMoment(read->wish);
  if (now >= last_moment) return read->done(NotConfirmed(), "");
  if (now < read->ask_index_at) return Park(read, wake);
  read->wish.index_asked = now;
  bool stopped = false;
  {
    std::lock_guard lock(mutex_);
    stopped = stopped_;
    if (!stopped) read->asked = asked_.emplace(last_moment, read);
    asked_count_.store(asked_.size());
  }
  if (stopped) return read->done(ShuttingDown(), "");
  if (wake && wake_ && last_moment - now < kAnswerSoon) wake_();
  read->backend->read_index(*read->mode, [this, read](const raft::ReadResult& result) {
    // On the node's thread, which must not wait for anything.
    if (!pool_->Submit([this, read, result] { TakeIndex(read, result); })) TakeIndex(read, result);
  });
}

void ConfigService::TakeIndex(const ReadPtr& read, const raft::ReadResult& result) {
  {
    std::lock_guard lock(mutex_);
    if (!read->asked) return;  // it was answered meanwhile
    asked_.erase(*std::exchange(read->asked, std::nullopt));
    asked_count_.store(asked_.size());
  }
  switch (result.outcome) {
    case raft::ReadOutcome::kConfirmed:
      read->wish.index = result.index;
      read->lease_until = result.lease_until;
      break;
    case raft::ReadOutcome::kNoLeader:
    case raft::ReadOutcome::kLeaderLost:
    case raft::ReadOutcome::kTimedOut:
    case raft::ReadOutcome::kTooMany:
      read->ask_index_at = now_() + kIndexRetryDelay;
      break;
  }
  Judge(read);
}

void ConfigService::RefuseUnanswered() {
  const Instant now = now_();
  std::vector<ReadPtr> reads;
  {
    std::lock_guard lock(mutex_);
    while (!asked_.empty() && asked_.begin()->first <= now) {
      reads.push_back(asked_.begin()->second);
      reads.back()->asked.reset();
      asked_.erase(asked_.begin());
    }
    asked_count_.store(asked_.size());
  }
  for (const ReadPtr& read : reads) read->done(NotConfirmed(), "");
}

void ConfigService::Judge(const ReadPtr& read, bool wake) {
  if (stopped_) return read->done(ShuttingDown(), "");
  if (read->call->cancelled()) {
    return read->done(CallerGone(read->call->deadline(), now_(), "READ_DEADLINE"), "");
  }
  ReadState state;
  if (read->backend != nullptr) {
    state.caught_up_once = read->backend->caught_up_once();
    if (state.caught_up_once && read->mode && !read->wish.index) return AskIndex(read, wake);
    state.fresh_as_of = read->backend->status()->fresh_as_of;
    // Few ask for these, and the summary costs a lock.
    const ReadWish& wish = read->wish;
    if (wish.revision || wish.min_revision || wish.index) {
      const storage::StateSummary summary = read->backend->state->Summary();
      state.revision = summary.revision;
      state.applied = summary.applied;
    }
  }
  const ReadVerdict verdict = JudgeRead(state, read->wish, now_());
  switch (verdict.kind) {
    case ReadVerdict::Kind::kRefuse:
      return read->done(MakeReadError(verdict.refusal), "");
    case ReadVerdict::Kind::kServe:
      if (!pool_->Submit(
              [this, read, fresh_as_of = verdict.fresh_as_of] { RunRead(read, fresh_as_of); })) {
        read->done(TooManyReads(), "");
      }
      return;
    case ReadVerdict::Kind::kWait:
      return Park(read, wake);
  }
}

void ConfigService::Park(const ReadPtr& read, bool wake) {
  grpc::Status refusal;
  {
    std::lock_guard lock(mutex_);
    if (stopped_) {
      refusal = ShuttingDown();
    } else if (waiting_.size() >= kParkedReadsMax) {
      refusal = TooManyReads();
    } else {
      waiting_.push_back(read);
      waiting_count_.store(waiting_.size());
    }
  }
  if (!refusal.ok()) return read->done(std::move(refusal), "");
  if (wake && wake_) wake_();
}

bool ConfigService::Wanted(const Read& read) const {
  return !stopped_ && !read.call->cancelled() && now_() < read.wish.deadline;
}

grpc::Status ConfigService::WhyNotWanted(const Read& read) const {
  if (stopped_) return ShuttingDown();
  if (read.call->cancelled()) return CallerGone(read.wish.deadline, now_(), "READ_DEADLINE");
  return MakeError(grpc::StatusCode::DEADLINE_EXCEEDED, "READ_DEADLINE",
                   "the deadline passed before the read was done");
}

void ConfigService::RunRead(const ReadPtr& read, std::optional<Instant> fresh_as_of) {
  if (!Wanted(*read)) return read->done(WhyNotWanted(*read), "");
  storage::ReadLimits limits;
  // "Busy" is said in time for the caller to hear it.
  limits.wait = std::clamp(
      std::chrono::duration_cast<std::chrono::milliseconds>(LastMoment(read->wish) - now_()),
      std::chrono::milliseconds(0), limits.wait);
  limits.abandon = [this, wanted = read.get()] { return !Wanted(*wanted); };
  // Who leads, as of before the read; execute adds the revision.
  *read->header() = MakeResponseHeader(node_id_, read->backend->cluster, *read->backend->status());
  grpc::Status status = read->execute(limits);
  if (!status.ok() && !Wanted(*read)) status = WhyNotWanted(*read);
  const Instant now = now_();
  if (read->lease_until && now >= *read->lease_until) {
    // The lease ended meanwhile. A round next: a read that takes longer than a lease lasts would be
    // done again and again.
    read->mode = raft::ReadMode::kRound;
    read->response->Clear();
    read->wish.index.reset();
    read->lease_until.reset();
    return Judge(read);
  }
  // That there is no such key is an answer too: it may not be older than the caller takes, and says
  // how old it is. An error has no header.
  const bool absent = status.error_code() == grpc::StatusCode::NOT_FOUND;
  const ReadRefusal stale = CheckStaleness(fresh_as_of, read->wish.max_staleness, now);
  if ((status.ok() || absent) && !stale.ok()) return read->done(MakeReadError(stale), "");
  if (absent) status = AddMetadata(status, Freshness(read->header()->revision(), fresh_as_of, now));
  if (!status.ok()) return read->done(std::move(status), "");
  // A later page shows the first one's revision, whose age only the first page's answer knew.
  if (!read->pinned) {
    *read->header()->mutable_staleness() = MeasuredStaleness(fresh_as_of, now);
  }
  read->done(grpc::Status::OK, read->response->SerializeAsString());
}

void ConfigService::Tick() {
  if (has_asked()) RefuseUnanswered();
  if (!has_waiting()) return;
  std::vector<ReadPtr> reads;
  {
    std::lock_guard lock(mutex_);
    reads.swap(waiting_);
    waiting_count_.store(0);
  }
  for (const ReadPtr& read : reads) Judge(read, false);
}

void ConfigService::Stop() {
  std::vector<ReadPtr> reads;
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    reads.swap(waiting_);
    waiting_count_.store(0);
    for (const auto& [last_moment, read] : asked_) {
      read->asked.reset();
      reads.push_back(read);
    }
    asked_.clear();
    asked_count_.store(0);
  }
  for (const ReadPtr& read : reads) read->done(ShuttingDown(), "");
}

// --- Writes ---

void ConfigService::Write(v1::Command command, CallPtr call, CallDone done,
                          MakeResponse make_response) {
  if (stopped_) return done(ShuttingDown(), "");
  const std::shared_ptr<const ConfigBackend> backend = this->backend();
  if (backend == nullptr) {
    return done(MakeError(grpc::StatusCode::UNAVAILABLE, "NOT_BORN",
                          "this node is not part of a cluster yet; its status says what it lacks",
                          {}, kConfigRetryDelay),
                "");
  }
  const std::shared_ptr<const raft::NodeStatus> node = backend->status();
  // Without a leader the ingress waits and then says so. With one it would wait for BirthComplete,
  // which may take as long as a founder is down; who joined later gets it with all the rest.
  if (node->leader && !node->birth_complete && backend->joined) {
    return done(MakeError(grpc::StatusCode::UNAVAILABLE, "NOT_CAUGHT_UP",
                          "this node has just been let in and has not caught up with the cluster "
                          "yet: ask another node or try again",
                          {}, kConfigRetryDelay),
                "");
  }
  if (node->leader && !node->birth_complete) {
    return done(MakeError(grpc::StatusCode::UNAVAILABLE, "NOT_BORN",
                          "birth is not complete: no write is accepted before every founder is "
                          "born and the leader has recorded it; `quorate status` tells what is "
                          "lacking",
                          {}, kConfigRetryDelay),
                "");
  }
  if (command.has_client_request() && command.client_request().revision() == 0) {
    // The revision of a state that shows nothing yet would look like a write of long ago, and be
    // refused for good (REQUEST_ID_EXPIRED).
    if (!backend->caught_up_once()) {
      return done(MakeError(grpc::StatusCode::UNAVAILABLE, "NOT_CAUGHT_UP",
                            "this node has not caught up with the cluster since its data directory "
                            "was made, and the write has a request_id without request_revision; "
                            "ask another node or try again",
                            {}, kConfigRetryDelay),
                  "");
    }
    command.mutable_client_request()->set_revision(backend->state->Summary().revision.value());
  }
  // The outcome and the caller's going away may come at the same time: the first one answers.
  struct Ending {
    explicit Ending(CallDone call_done) : done(std::move(call_done)) {}
    void End(grpc::Status status, std::string response) {
      CallDone mine;
      {
        std::lock_guard lock(mutex);
        mine.swap(done);
      }
      if (mine) mine(std::move(status), std::move(response));
    }
    std::mutex mutex;
    CallDone done;  // protected by mutex; empty once it has run
  };
  auto ending = std::make_shared<Ending>(std::move(done));
  const ingress::WriteId id = backend->write(
      std::move(command), call->deadline(), call->metadata(),
      [this, backend, ending,
       make_response = std::move(make_response)](const ingress::Outcome& outcome) {
        v1::Answer answer;
        grpc::Status status = StatusOf(outcome, &answer);
        if (!status.ok()) return ending->End(std::move(status), "");
        v1::ResponseHeader header =
            MakeResponseHeader(node_id_, backend->cluster, *backend->status());
        header.set_revision(answer.revision());
        std::optional<std::string> response = make_response(answer, header);
        if (!response) {
          return ending->End(MakeError(grpc::StatusCode::DEADLINE_EXCEEDED, "OUTCOME_UNKNOWN",
                                       "the write was applied and its answer cannot be read"),
                             "");
        }
        ending->End(grpc::Status::OK, *std::move(response));
      });
  call->OnCancel([this, backend, ending, id, deadline = call->deadline()] {
    (void)backend->cancel(id);  // when it is too late the first of the two to end answers
    ending->End(CallerGone(deadline, now_(), "OUTCOME_UNKNOWN"), "");
  });
}

}  // namespace quorate::services
