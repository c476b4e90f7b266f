// A node for the command's tests: Config and Cluster over a map, on a free port of loopback, with
// failures on demand. Several of them may share one map, as nodes of one cluster do.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "quorate/v1/cluster.grpc.pb.h"
#include "quorate/v1/config.grpc.pb.h"
#include "services/errors.h"

namespace quorate::tools {

// What the nodes of one cluster have in common.
struct FakeStore {
  std::mutex mutex;
  std::map<std::string, v1::Item> items;     // protected by mutex
  uint64_t revision = 1;                     // protected by mutex
  std::map<std::string, std::string> notes;  // protected by mutex
  // What Get shows at a revision, by it; protected by mutex. Others are NOT_FOUND.
  std::map<uint64_t, v1::Item> past;
  std::vector<v1::HistoryEntry> history;  // of every key, newest first; protected by mutex
  // The first answers to Puts with a request id; protected by mutex.
  std::map<std::string, v1::PutResponse> answers;

  // Copies, for the test's thread.
  v1::Item Item(const std::string& key) {
    const std::lock_guard lock(mutex);
    return items[key];
  }
  std::string Note(const std::string& key) {
    const std::lock_guard lock(mutex);
    return notes[key];
  }
};

class FakeNode final : public v1::Config::Service, public v1::Cluster::Service {
 public:
  FakeNode(std::string name, std::shared_ptr<FakeStore> store)
      : name_(std::move(name)), store_(std::move(store)) {
    status_.mutable_header()->set_node_id(name_);
    status_.mutable_header()->set_cluster_id("00000000000000aa");
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(static_cast<v1::Config::Service*>(this));
    builder.RegisterService(static_cast<v1::Cluster::Service*>(this));
    server_ = builder.BuildAndStart();
  }
  ~FakeNode() override { Stop(); }

  // Ends it: its port refuses from now on.
  void Stop() {
    if (server_) server_->Shutdown();
    server_.reset();
  }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  int port() const { return port_; }
  grpc::Server* server() { return server_.get(); }

  // The next calls end so, one each; a write is done nevertheless when `applied`.
  void FailNext(grpc::Status status, bool applied = false) {
    const std::lock_guard lock(store_->mutex);
    failures_.push_back({std::move(status), applied});
  }
  // As FailNext, for the next Puts only.
  void FailNextPut(grpc::Status status, bool applied = false) {
    const std::lock_guard lock(store_->mutex);
    put_failures_.push_back({std::move(status), applied});
  }
  void FailNextTxn(const grpc::Status& status) {
    const std::lock_guard lock(store_->mutex);
    txn_failure_ = status;
  }
  v1::PutRequest last_put() {
    const std::lock_guard lock(store_->mutex);
    return last_put_;
  }
  // Every Put of this key fails so.
  void FailKey(const std::string& key, grpc::Status status) {
    const std::lock_guard lock(store_->mutex);
    bad_keys_[key] = std::move(status);
  }
  // A Write stream breaks when so many writes more are done, of which so many, fewer, are answered.
  void BreakNextStream(int done, int answered) {
    const std::lock_guard lock(store_->mutex);
    break_done_ = done;
    break_answered_ = answered;
  }
  // How many calls reached the node.
  int calls() {
    const std::lock_guard lock(store_->mutex);
    return calls_;
  }
  v1::ReadOptions last_read() {
    const std::lock_guard lock(store_->mutex);
    return last_read_;
  }
  // Every List, in order.
  std::vector<v1::ListRequest> lists() {
    const std::lock_guard lock(store_->mutex);
    return lists_;
  }
  v1::DeleteRequest last_delete() {
    const std::lock_guard lock(store_->mutex);
    return last_delete_;
  }
  v1::StatusResponse& status() { return status_; }
  // What it was asked to be, in order: "drain" or "undo". It leads on when so told.
  std::vector<std::string> drains() {
    const std::lock_guard lock(store_->mutex);
    return drains_;
  }
  void set_leads_on(bool leads_on) { leads_on_ = leads_on; }
  v1::RollbackRequest last_rollback() {
    const std::lock_guard lock(store_->mutex);
    return last_rollback_;
  }
  v1::TxnRequest last_txn() {
    const std::lock_guard lock(store_->mutex);
    return last_txn_;
  }
  void set_txn_response(const v1::TxnResponse& response) { txn_response_ = response; }
  void set_page_items(size_t items) { page_items_ = items; }

 private:
  grpc::Status Drain(grpc::ServerContext*, const v1::DrainRequest* request,
                     v1::DrainResponse* response) override {
    const std::lock_guard lock(store_->mutex);
    drains_.emplace_back(request->undo() ? "undo" : "drain");
    response->mutable_header()->set_node_id(name_);
    response->set_leads(leads_on_);
    return grpc::Status::OK;
  }

  struct Failure {
    grpc::Status status;
    bool applied;
  };

  std::optional<Failure> NextFailure() {
    ++calls_;
    if (failures_.empty()) return std::nullopt;
    Failure failure = failures_.front();
    failures_.pop_front();
    return failure;
  }
  void FillHeader(v1::ResponseHeader* header) {
    header->set_node_id(name_);
    header->set_cluster_id("00000000000000aa");
    header->set_revision(store_->revision);
  }

  grpc::Status Get(grpc::ServerContext*, const v1::GetRequest* request,
                   v1::GetResponse* response) override {
    const std::lock_guard lock(store_->mutex);
    last_read_ = request->read();
    if (const auto failure = NextFailure()) return failure->status;
    FillHeader(response->mutable_header());
    if (request->read().at_revision() != 0) {
      const auto then = store_->past.find(request->read().at_revision());
      if (then == store_->past.end()) {
        return services::MakeError(grpc::StatusCode::NOT_FOUND, "KEY_NOT_FOUND", "not then");
      }
      *response->mutable_item() = then->second;
      return grpc::Status::OK;
    }
    const auto found = store_->items.find(request->key());
    if (found == store_->items.end()) {
      return services::MakeError(grpc::StatusCode::NOT_FOUND, "KEY_NOT_FOUND",
                                 "no item `" + request->key() + "`");
    }
    *response->mutable_item() = found->second;
    return grpc::Status::OK;
  }

  grpc::Status List(grpc::ServerContext*, const v1::ListRequest* request,
                    v1::ListResponse* response) override {
    const std::lock_guard lock(store_->mutex);
    last_read_ = request->read();
    lists_.push_back(*request);
    if (const auto failure = NextFailure()) return failure->status;
    FillHeader(response->mutable_header());
    const std::string& prefix = request->prefix();
    const size_t page_size = request->page_size();
    const size_t items_max = page_size == 0 ? page_items_ : std::min(page_size, page_items_);
    std::string last;
    for (auto it = store_->items.lower_bound(prefix); it != store_->items.end(); ++it) {
      if (it->first.compare(0, prefix.size(), prefix) != 0) break;
      response->set_count(response->count() + 1);
      if (request->count_only() || it->first <= request->page_token()) continue;
      if (static_cast<size_t>(response->items_size()) == items_max) {
        response->set_next_page_token(last);
        break;
      }
      *response->add_items() = it->second;
      if (request->keys_only()) response->mutable_items()->rbegin()->clear_value();
      last = it->first;
    }
    if (!request->count_only()) response->clear_count();
    return grpc::Status::OK;
  }

  grpc::Status Put(grpc::ServerContext*, const v1::PutRequest* request,
                   v1::PutResponse* response) override {
    const std::lock_guard lock(store_->mutex);
    last_put_ = *request;
    auto failure = NextFailure();
    if (!failure && !put_failures_.empty()) {
      failure = put_failures_.front();
      put_failures_.pop_front();
    }
    if (failure && !failure->applied) return failure->status;
    if (const auto bad = bad_keys_.find(request->key()); bad != bad_keys_.end()) {
      return bad->second;
    }
    const auto known = store_->answers.find(request->request_id());
    if (!request->request_id().empty() && known != store_->answers.end()) {
      *response = known->second;
      return grpc::Status::OK;
    }
    const auto found = store_->items.find(request->key());
    const uint64_t current = found == store_->items.end() ? 0 : found->second.mod_revision();
    if (request->has_expected_revision() && request->expected_revision() != current) {
      return services::MakeError(grpc::StatusCode::ABORTED, "REVISION_MISMATCH",
                                 "the item is at another revision",
                                 {{"current_revision", std::to_string(current)}});
    }
    v1::Item& item = store_->items[request->key()];
    item.set_key(request->key());
    if (request->has_data()) {
      item.set_data(request->data());
    } else {
      item.set_text(request->text());
    }
    item.set_mod_revision(++store_->revision);
    if (current == 0) item.set_create_revision(store_->revision);
    item.set_version(item.version() + 1);
    item.set_ttl_id(request->ttl_id());
    store_->notes[request->key()] = request->note();
    FillHeader(response->mutable_header());
    response->set_create_revision(item.create_revision());
    response->set_version(item.version());
    if (!request->request_id().empty()) store_->answers[request->request_id()] = *response;
    return failure ? failure->status : grpc::Status::OK;
  }

  // A page token is how many entries were shown.
  grpc::Status History(grpc::ServerContext*, const v1::HistoryRequest* request,
                       v1::HistoryResponse* response) override {
    const std::lock_guard lock(store_->mutex);
    last_read_ = request->read();
    if (const auto failure = NextFailure()) return failure->status;
    FillHeader(response->mutable_header());
    size_t at = request->page_token().empty() ? 0 : std::stoul(request->page_token());
    while (at < store_->history.size() && static_cast<size_t>(response->entries_size()) <
                                              std::min<size_t>(request->page_size(), page_items_)) {
      *response->add_entries() = store_->history[at++];
    }
    if (at < store_->history.size()) response->set_next_page_token(std::to_string(at));
    return grpc::Status::OK;
  }

  grpc::Status Rollback(grpc::ServerContext*, const v1::RollbackRequest* request,
                        v1::RollbackResponse* response) override {
    const std::lock_guard lock(store_->mutex);
    last_rollback_ = *request;
    if (const auto failure = NextFailure()) return failure->status;
    FillHeader(response->mutable_header());
    response->set_changed(2);
    response->set_deleted(1);
    return grpc::Status::OK;
  }

  // Keeps the request; the answer is the one that was set.
  grpc::Status Txn(grpc::ServerContext*, const v1::TxnRequest* request,
                   v1::TxnResponse* response) override {
    const std::lock_guard lock(store_->mutex);
    last_txn_ = *request;
    if (const auto failure = NextFailure()) return failure->status;
    if (!txn_failure_.ok()) return std::exchange(txn_failure_, grpc::Status::OK);
    *response = txn_response_;
    FillHeader(response->mutable_header());
    return grpc::Status::OK;
  }

  grpc::Status Write(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::WriteResponse, v1::WriteRequest>* stream) override {
    bool breaks = false;
    v1::WriteRequest request;
    for (bool last = false; !last && stream->Read(&request);) {
      v1::WriteResponse response;
      const grpc::Status status = WriteOne(context, request, &response);
      response.set_code(status.error_code());
      response.set_message(status.error_message());
      if (!status.ok()) response.set_status(services::ToProto(status).SerializeAsString());
      {
        const std::lock_guard lock(store_->mutex);
        last = break_done_ > 0 && --break_done_ == 0;
        breaks = breaks || last || (break_done_ > 0 && break_answered_ == 0);
        if (break_answered_ > 0) --break_answered_;
      }
      if (!breaks) stream->Write(response);
    }
    if (!breaks) return grpc::Status::OK;
    const std::lock_guard lock(store_->mutex);
    break_done_ = 0;
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "Socket closed");
  }
  grpc::Status WriteOne(grpc::ServerContext* context, const v1::WriteRequest& request,
                        v1::WriteResponse* response) {
    switch (request.write_case()) {
      case v1::WriteRequest::kPut:
        return Put(context, &request.put(), response->mutable_put());
      case v1::WriteRequest::kDelete:
        return Delete(context, &request.delete_(), response->mutable_delete_());
      case v1::WriteRequest::kTxn:
        return Txn(context, &request.txn(), response->mutable_txn());
      case v1::WriteRequest::kRollback:
        return Rollback(context, &request.rollback(), response->mutable_rollback());
      case v1::WriteRequest::WRITE_NOT_SET:
        break;
    }
    return services::MakeError(grpc::StatusCode::INVALID_ARGUMENT, "OPERATION_MISSING", "nothing");
  }

  grpc::Status Delete(grpc::ServerContext*, const v1::DeleteRequest* request,
                      v1::DeleteResponse* response) override {
    const std::lock_guard lock(store_->mutex);
    last_delete_ = *request;
    if (const auto failure = NextFailure()) return failure->status;
    if (request->has_key()) {
      response->set_deleted(store_->items.erase(request->key()));
    } else {
      response->set_deleted(std::erase_if(store_->items, [&](const auto& entry) {
        return entry.first.compare(0, request->prefix().size(), request->prefix()) == 0;
      }));
    }
    if (response->deleted() > 0) ++store_->revision;
    FillHeader(response->mutable_header());
    return grpc::Status::OK;
  }

  grpc::Status Status(grpc::ServerContext*, const v1::StatusRequest*,
                      v1::StatusResponse* response) override {
    const std::lock_guard lock(store_->mutex);
    if (const auto failure = NextFailure()) return failure->status;
    *response = status_;
    response->mutable_header()->set_revision(store_->revision);
    return grpc::Status::OK;
  }

  grpc::Status ListMembers(grpc::ServerContext*, const v1::ListMembersRequest*,
                           v1::ListMembersResponse* response) override {
    const std::lock_guard lock(store_->mutex);
    if (const auto failure = NextFailure()) return failure->status;
    *response->mutable_header() = status_.header();
    *response->mutable_members() = status_.members();
    response->set_failures_tolerated(1);
    return grpc::Status::OK;
  }

  const std::string name_;
  const std::shared_ptr<FakeStore> store_;
  v1::StatusResponse status_;  // set before the calls that show it
  std::vector<std::string> drains_;
  bool leads_on_ = false;
  size_t page_items_ = 1000;
  std::deque<Failure> failures_;       // protected by store_->mutex
  std::deque<Failure> put_failures_;   // protected by store_->mutex
  grpc::Status txn_failure_;           // protected by store_->mutex
  v1::RollbackRequest last_rollback_;  // protected by store_->mutex
  v1::TxnRequest last_txn_;            // protected by store_->mutex
  v1::TxnResponse txn_response_ = [] {
    v1::TxnResponse response;
    response.set_succeeded(true);
    return response;
  }();
  v1::PutRequest last_put_;                       // protected by store_->mutex
  std::map<std::string, grpc::Status> bad_keys_;  // protected by store_->mutex
  int break_done_ = 0;                            // protected by store_->mutex
  int break_answered_ = 0;                        // protected by store_->mutex
  int calls_ = 0;                                 // protected by store_->mutex
  v1::ReadOptions last_read_;                     // protected by store_->mutex
  std::vector<v1::ListRequest> lists_;            // protected by store_->mutex
  v1::DeleteRequest last_delete_;                 // protected by store_->mutex
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// A port of loopback that is taken and refuses every connection.
class DeadPort {
 public:
  DeadPort() : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    socklen_t size = sizeof address;
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }
  ~DeadPort() { close(fd_); }
  const std::string& address() const { return address_; }

 private:
  const int fd_;
  std::string address_;
};

}  // namespace quorate::tools
