// A node that keeps items and time-to-lives as it is told, on a free port of loopback.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "quorate/v1/cluster.grpc.pb.h"
#include "quorate/v1/config.grpc.pb.h"
#include "services/errors.h"

namespace quorate::tools {

// Items and time-to-lives of one store; nothing expires by itself.
class TtlNode final : public v1::Config::Service, public v1::Cluster::Service {
 public:
  TtlNode() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(static_cast<v1::Config::Service*>(this));
    builder.RegisterService(static_cast<v1::Cluster::Service*>(this));
    server_ = builder.BuildAndStart();
  }
  ~TtlNode() override { server_->Shutdown(std::chrono::system_clock::now()); }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  // By somebody else; plain without `ttl_id`.
  void PutItem(const std::string& key, const std::string& text, const std::string& ttl_id = "") {
    const std::lock_guard lock(mutex_);
    v1::Item& item = items_[key];
    item.set_key(key);
    item.set_text(text);
    item.set_ttl_id(ttl_id);
    item.set_mod_revision(++revision_);
    if (item.create_revision() == 0) item.set_create_revision(revision_);
  }
  void Erase(const std::string& key) {
    const std::lock_guard lock(mutex_);
    if (items_.erase(key) > 0) ++revision_;
  }
  // Just before the next item is asked for, these are erased.
  void EraseBeforeGet(std::vector<std::string> keys) {
    const std::lock_guard lock(mutex_);
    erased_before_get_ = std::move(keys);
  }
  // Renewals are answered with this from now on.
  void RefuseRenewals(const grpc::Status& status) {
    const std::lock_guard lock(mutex_);
    renewal_ = status;
  }
  // Renewals get no answer as long as this is so.
  void HoldRenewals(bool held) {
    const std::lock_guard lock(mutex_);
    renewals_held_ = held;
  }
  // Somebody else who wants `name`.
  void Contend(const std::string& name, const std::string& id) {
    PutItem(name + "/" + id, "x", id);
  }
  // Watches are refused from now on.
  void RefuseWatches() {
    const std::lock_guard lock(mutex_);
    watches_refused_ = true;
  }
  // Each listing takes so long.
  void DelayLists(std::chrono::milliseconds delay) {
    const std::lock_guard lock(mutex_);
    list_delay_ = delay;
  }
  std::vector<std::string> keys() {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> keys;
    for (const auto& [key, item] : items_) keys.push_back(key);
    return keys;
  }
  size_t ttls() {
    const std::lock_guard lock(mutex_);
    return ttls_.size();
  }
  int renewals() {
    const std::lock_guard lock(mutex_);
    return renewals_;
  }
  // Items that listings have shown with their values; keys that were asked for, one by one.
  int values_listed() {
    const std::lock_guard lock(mutex_);
    return values_listed_;
  }
  std::set<std::string> keys_got() {
    const std::lock_guard lock(mutex_);
    return keys_got_;
  }
  // Of which keys watches have begun, in order; how often any of them has looked since.
  std::vector<std::string> watched() {
    const std::lock_guard lock(mutex_);
    return watched_;
  }
  int looks() {
    const std::lock_guard lock(mutex_);
    return looks_;
  }
  v1::GrantTtlRequest last_grant() {
    const std::lock_guard lock(mutex_);
    return last_grant_;
  }
  // As an expiry does.
  void EndTtl(const std::string& ttl_id) {
    const std::lock_guard lock(mutex_);
    ttls_.erase(ttl_id);
    std::erase_if(items_, [&](const auto& each) { return each.second.ttl_id() == ttl_id; });
    ++revision_;
  }

 private:
  void Fill(v1::ResponseHeader* header) {
    header->set_cluster_id("00000000000000aa");
    header->set_node_id("n1");
    header->set_revision(revision_);
  }

  std::vector<std::string> TakeErasedBeforeGet() {
    const std::lock_guard lock(mutex_);
    return std::exchange(erased_before_get_, {});
  }

  grpc::Status Status(grpc::ServerContext*, const v1::StatusRequest*,
                      v1::StatusResponse* response) override {
    const std::lock_guard lock(mutex_);
    Fill(response->mutable_header());
    return grpc::Status::OK;
  }
  grpc::Status GrantTtl(grpc::ServerContext*, const v1::GrantTtlRequest* request,
                        v1::GrantTtlResponse* response) override {
    const std::lock_guard lock(mutex_);
    response->set_ttl_id(ToHex(0xa0 + ++granted_));
    ttls_[response->ttl_id()] = request->ttl();
    last_grant_ = *request;
    *response->mutable_ttl() = request->ttl();
    Fill(response->mutable_header());
    return grpc::Status::OK;
  }
  grpc::Status KeepAliveTtl(grpc::ServerContext* context,
                            grpc::ServerReaderWriter<v1::KeepAliveTtlResponse,
                                                     v1::KeepAliveTtlRequest>* stream) override {
    v1::KeepAliveTtlRequest request;
    while (stream->Read(&request)) {
      v1::KeepAliveTtlResponse response;
      bool held = false;
      {
        const std::lock_guard lock(mutex_);
        ++renewals_;
        held = renewals_held_;
        response.set_ttl_id(request.ttl_id());
        const auto found = ttls_.find(request.ttl_id());
        grpc::Status status = renewal_;
        if (status.ok() && found == ttls_.end()) {
          status = services::MakeError(grpc::StatusCode::NOT_FOUND, "TTL_NOT_FOUND", "gone");
        }
        response.set_code(status.error_code());
        if (!status.ok()) {
          response.set_status(services::ToProto(status).SerializeAsString());
        } else {
          *response.mutable_remaining() = found->second;
        }
      }
      while (held && !context->IsCancelled()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        const std::lock_guard lock(mutex_);
        held = renewals_held_;
      }
      stream->Write(response);
    }
    return grpc::Status::OK;
  }
  grpc::Status RevokeTtl(grpc::ServerContext*, const v1::RevokeTtlRequest* request,
                         v1::RevokeTtlResponse* response) override {
    const std::lock_guard lock(mutex_);
    if (ttls_.erase(request->ttl_id()) == 0) {
      return services::MakeError(grpc::StatusCode::NOT_FOUND, "TTL_NOT_FOUND", "gone");
    }
    response->set_deleted(std::erase_if(
        items_, [&](const auto& each) { return each.second.ttl_id() == request->ttl_id(); }));
    ++revision_;
    Fill(response->mutable_header());
    return grpc::Status::OK;
  }
  grpc::Status Put(grpc::ServerContext*, const v1::PutRequest* request,
                   v1::PutResponse* response) override {
    const std::lock_guard lock(mutex_);
    EXPECT_TRUE(ttls_.contains(request->ttl_id()));
    EXPECT_EQ(request->expected_revision(), 0u);
    v1::Item& item = items_[request->key()];
    item.set_key(request->key());
    item.set_text(request->text());
    item.set_ttl_id(request->ttl_id());
    item.set_create_revision(++revision_);
    item.set_mod_revision(revision_);
    response->set_create_revision(revision_);
    Fill(response->mutable_header());
    return grpc::Status::OK;
  }
  grpc::Status Get(grpc::ServerContext*, const v1::GetRequest* request,
                   v1::GetResponse* response) override {
    for (const std::string& key : TakeErasedBeforeGet()) Erase(key);
    const std::lock_guard lock(mutex_);
    Fill(response->mutable_header());
    keys_got_.insert(request->key());
    if (const auto found = items_.find(request->key()); found != items_.end()) {
      *response->mutable_item() = found->second;
      return grpc::Status::OK;
    }
    return services::MakeError(grpc::StatusCode::NOT_FOUND, "KEY_NOT_FOUND", "no such key");
  }
  // Two items a page.
  grpc::Status List(grpc::ServerContext*, const v1::ListRequest* request,
                    v1::ListResponse* response) override {
    std::unique_lock lock(mutex_);
    if (const auto delay = list_delay_; delay.count() > 0) {
      lock.unlock();
      std::this_thread::sleep_for(delay);
      lock.lock();
    }
    Fill(response->mutable_header());
    for (const auto& [key, item] : items_) {
      if (!key.starts_with(request->prefix()) || key <= request->page_token()) continue;
      if (response->items_size() == 2) {
        response->set_next_page_token(response->items(1).key());
        break;
      }
      *response->add_items() = item;
      if (request->keys_only()) {
        response->mutable_items()->rbegin()->clear_value();
        response->mutable_items()->rbegin()->clear_ttl_id();
      } else {
        ++values_listed_;
      }
    }
    return grpc::Status::OK;
  }
  // Of a key: its last change. Of a prefix: the state, again and again, as a new one each time.
  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::WatchResponse>* writer) override {
    uint64_t shown = 0;
    {
      const std::lock_guard lock(mutex_);
      if (watches_refused_) return {grpc::StatusCode::INVALID_ARGUMENT, "refused"};
      watched_.push_back(request->key());
    }
    while (!context->IsCancelled()) {
      v1::WatchResponse message;
      {
        const std::lock_guard lock(mutex_);
        Fill(message.mutable_header());
        message.set_resume_revision(revision_ + 1);
        const auto found = items_.find(request->key());
        if (request->has_key() && found == items_.end()) {
          v1::WatchEvent* event = message.add_events();
          event->set_type(v1::WatchEvent::TYPE_DELETE);
          event->mutable_item()->set_key(request->key());
        } else if (request->has_key() &&
                   found->second.mod_revision() >= request->start_revision()) {
          v1::WatchEvent* event = message.add_events();
          event->set_type(v1::WatchEvent::TYPE_PUT);
          *event->mutable_item() = found->second;
        }
        if (!request->has_key() && shown != revision_) {
          for (const auto& [key, item] : items_) {
            v1::WatchEvent* event = message.add_events();
            event->set_type(v1::WatchEvent::TYPE_PUT);
            *event->mutable_item() = item;
          }
          message.set_reset(true);
          message.set_synced(true);
        }
        shown = revision_;
        ++looks_;
      }
      if (message.reset() || message.events_size() > 0) writer->Write(message);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return grpc::Status::CANCELLED;
  }

  std::mutex mutex_;  // protects what follows
  uint64_t revision_ = 1;
  uint64_t granted_ = 0;
  int renewals_ = 0;
  int values_listed_ = 0;
  int looks_ = 0;
  bool watches_refused_ = false;
  std::set<std::string> keys_got_;
  std::vector<std::string> erased_before_get_;
  std::vector<std::string> watched_;
  std::map<std::string, v1::Item> items_;
  std::map<std::string, google::protobuf::Duration> ttls_;
  std::chrono::milliseconds list_delay_{};
  grpc::Status renewal_;
  bool renewals_held_ = false;
  v1::GrantTtlRequest last_grant_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace quorate::tools
