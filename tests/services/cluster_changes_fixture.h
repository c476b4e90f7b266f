// The calls that change the cluster, with a node, peers and a leader that the test plays.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "services/cluster_changes.h"
#include "services/errors.h"
#include "services/system_clock.h"

namespace quorate::services {

struct AnsweredCall {
  grpc::Status status;
  std::string response;
  std::string reason() const { return DetailsOf(status).reason; }
};

class ClusterChangesFixture : public testing::Test {
 protected:
  ClusterChangesFixture() {
    auto members = std::make_shared<raft::Membership>();
    members->cluster = ClusterId(0xC1);
    for (uint64_t i = 1; i <= 3; ++i) {
      raft::Member member;
      member.store = StoreId(0xA0 + i);
      member.name = "n" + std::to_string(i);
      member.address = member.name + ":7000";
      member.voter = true;
      members->members.push_back(member);
    }
    members->members.push_back({.store = StoreId(0xA4), .name = "n4", .address = "n4:7000"});
    node_.membership = members;
    node_.self = StoreId(0xA1);
    for (uint64_t i = 2; i <= 3; ++i) {
      const std::string name = "n" + std::to_string(i);
      nodes_[name + ":7000"] = Node(0xA0 + i, name);
    }
    node_.birth_complete = true;
    node_.term = raft::Term(3);
    Lead();
    changes_ = std::make_unique<ClusterChanges>(MakePorts());
  }
  ~ClusterChangesFixture() override { changes_->Stop(); }

  // With other limits.
  void Remake() {
    changes_->Stop();
    changes_ = std::make_unique<ClusterChanges>(MakePorts());
  }
  void Lead() { Become(raft::Role::kLeader, StoreId(0xA1)); }
  void Follow(uint64_t leader) { Become(raft::Role::kFollower, StoreId(leader)); }
  void Become(raft::Role role, StoreId leader) {
    std::lock_guard lock(mutex_);
    node_.role = role;
    node_.leader = leader;
    node_.leader_ready = role == raft::Role::kLeader;
  }

  ClusterChanges::Ports MakePorts() {
    ClusterChanges::Ports ports;
    ports.view = [this] {
      std::lock_guard lock(mutex_);
      ClusterView view;
      view.now = BootNow();
      view.node_id = "n1";
      view.store = StoreId(0xA1);
      view.cluster = ClusterId(0xC1);
      view.birth.joined = joined_;
      if (transferred_ && --shown_after_ <= 0) {
        node_.role = raft::Role::kFollower;
        node_.leader = std::exchange(transferred_, StoreId());
      }
      if (lags_ > 0 && --lags_ == 0) applied_leases_ = !applied_leases_;
      view.state.emplace();
      view.state->leases = applied_leases_;
      if (!unborn_) view.node = std::make_shared<raft::NodeStatus>(node_);
      return view;
    };
    ports.change = [this](raft::MembershipChange change, raft::Node::ChangeDone done) {
      raft::ChangeResult result;
      {
        std::lock_guard lock(mutex_);
        proposed_.push_back(std::move(change));
        if (hang_) return held_.push_back(std::move(done));
        if (!results_.empty()) {
          result = results_.front();
          results_.pop_front();
        }
      }
      if (result.status == raft::ChangeStatus::kUnknown) Follow(0xA2);
      done(result);
    };
    ports.transfer = [this](StoreId target, raft::Node::TransferDone done) {
      if (transfer_ == raft::TransferStatus::kDone && !nobody_takes_over_) {
        std::lock_guard lock(mutex_);
        transferred_ = target ? target : StoreId(0xA3);
      }
      targets_.push_back(target);
      if (on_transfer_) on_transfer_();
      done(transfer_);
    };
    ports.identify = [this](const std::string& address, bool sure, PeerAsker::Done done) {
      return Identify(address, sure, std::move(done));
    };
    ports.forward = [this](StoreId leader, grpc::ClientContext* context,
                           v1::ForwardCallRequest request, v1::ForwardCallResponse* response) {
      std::lock_guard lock(mutex_);
      left_ = context->deadline() - std::chrono::system_clock::now();
      if (!shows_questions_ && NamesTheStore(request, response)) return grpc::Status::OK;
      forwarded_.push_back({leader, std::move(request)});
      if (on_forward_) return on_forward_(leader, response);
      return grpc::Status::OK;
    };
    ports.write = [this](v1::Command command, Instant, std::map<std::string, std::string>,
                         std::function<void(const ingress::Outcome&)> done) {
      return Write(std::move(command), done);
    };
    ports.cancel = [this](ingress::WriteId) {
      ++cancelled_;
      return true;
    };
    ports.pinned_revision = [this] { return pinned_.load(); };
    ports.ended = [this](std::string_view kind, std::string_view result) {
      std::lock_guard lock(mutex_);
      ++ended_[std::string(kind) + " " + std::string(result)];
    };
    ports.busy_wait = busy_wait_;
    ports.change_time_max = change_time_max_;
    ports.leader_wait = std::chrono::milliseconds(200);
    return ports;
  }

  // As a leader does that is asked which store has that name.
  bool NamesTheStore(const v1::ForwardCallRequest& request, v1::ForwardCallResponse* response) {
    v1::RemoveMemberRequest named;  // each of the three has the name in field 1
    if (!request.has_store() || request.store() != 0) return false;
    if (!named.ParseFromString(request.request())) return false;
    for (const raft::Member& member : node_.membership->members) {
      if (member.name != named.node_id()) continue;
      response->set_not_leader(true);
      response->set_store(member.store.value());
      return true;
    }
    return false;
  }

  std::function<void()> Identify(const std::string& address, bool sure, PeerAsker::Done done) {
    absl::StatusOr<v1::IdentifyResponse> answer = absl::UnavailableError("refused");
    {
      std::lock_guard lock(mutex_);
      asked_.emplace_back(address, sure);
      if (silent_.contains(address)) {
        questions_.push_back(std::move(done));
        return [this, i = questions_.size() - 1] { GiveUp(i); };
      }
      const auto found = nodes_.find(address);
      if (found != nodes_.end()) answer = found->second;
    }
    done(std::move(answer));
    return [] {};
  }
  void GiveUp(size_t question) {
    PeerAsker::Done done;
    {
      std::lock_guard lock(mutex_);
      done.swap(questions_[question]);
    }
    if (done) done(absl::CancelledError("given up"));
  }
  // Until it is so; looked at with mutex_ held. Fails the test when it takes too long: nothing
  // hangs.
  void Eventually(const std::string& what, const std::function<bool()>& is_so) {
    const Instant until = BootNow() + kHangs;
    while (true) {
      {
        std::lock_guard lock(mutex_);
        if (is_so()) return;
      }
      if (BootNow() >= until) {
        ADD_FAILURE() << "not within half a minute: " << what;
        return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  // Until somebody waits for an answer of a silent node.
  void WaitForQuestion() {
    Eventually("a silent node is asked",
               [this] { return !questions_.empty() && questions_.back(); });
  }
  // What a call has ended with; a call that never does fails the test.
  template <typename Answer>
  static Answer Get(std::future<Answer> answer) {
    if (answer.wait_for(kHangs) != std::future_status::ready) {
      ADD_FAILURE() << "a call has not ended within half a minute";
      return Answer();
    }
    return answer.get();
  }
  size_t OpenQuestions() {
    std::lock_guard lock(mutex_);
    return static_cast<size_t>(std::count_if(questions_.begin(), questions_.end(),
                                             [](const auto& done) { return done != nullptr; }));
  }

  ingress::WriteId Write(v1::Command command,
                         const std::function<void(const ingress::Outcome&)>& done) {
    ingress::Outcome outcome;
    ingress::WriteId id;
    {
      std::lock_guard lock(mutex_);
      if (hang_) return ingress::WriteId(++hung_writes_);
      commands_.push_back(std::move(command));
      id = ingress::WriteId(commands_.size());
      if (!outcomes_.empty() && outcomes_.front().kind != ingress::Outcome::Kind::kAnswered) {
        outcome = std::move(outcomes_.front());
        outcomes_.pop_front();
      } else {
        if (!outcomes_.empty()) outcomes_.pop_front();
        outcome.kind = ingress::Outcome::Kind::kAnswered;
        outcome.answer = std::make_shared<const std::string>(PieceDone());
      }
    }
    if (on_write_) on_write_();
    done(outcome);
    return id;
  }
  std::string PieceDone() {
    v1::Answer answer;
    answer.set_revision(50);
    answer.set_succeeded(commands_.size() >= pieces_);
    const bool leases = !commands_.empty() && commands_.back().set_settings().leases();
    (*answer.mutable_metadata())["leases"] = leases ? "on" : "off";
    (*answer.mutable_metadata())["compacted_revision"] = std::to_string(commands_.size() * 10);
    if (refuse_write_) {
      answer.set_code(grpc::StatusCode::OUT_OF_RANGE);
      answer.set_reason("REVISION_IN_FUTURE");
    }
    return answer.SerializeAsString();
  }
  // How the next writes end: answered, or not.
  static ingress::Outcome Answered() {
    ingress::Outcome outcome;
    outcome.kind = ingress::Outcome::Kind::kAnswered;
    return outcome;
  }
  static ingress::Outcome NotAccepted(const std::string& reason) {
    ingress::Outcome outcome;
    outcome.kind = ingress::Outcome::Kind::kNotAccepted;
    outcome.reason = reason;
    return outcome;
  }
  static ingress::Outcome UnknownOutcome() {
    ingress::Outcome outcome;
    outcome.kind = ingress::Outcome::Kind::kUnknown;
    return outcome;
  }

  v1::IdentifyResponse Node(uint64_t store, const std::string& name) {
    v1::IdentifyResponse node;
    node.mutable_header()->set_from_store(store);
    node.set_name(name);
    node.set_nonce(1);
    node.set_command_format(3);
    node.set_membership_version(raft::kMembershipVersion);
    node.set_address(name + ":7000");
    node.set_state(static_cast<uint32_t>(raft::BirthState::kWaitingToJoin));
    return node;
  }

  static CallPtr NewCall(Duration time = std::chrono::seconds(20)) {
    return std::make_shared<CallContext>(
        BootNow() + time, std::map<std::string, std::string>{{"authorization", "me"}});
  }
  std::future<AnsweredCall> Begin(const std::string& method,
                                  const google::protobuf::Message& request,
                                  CallPtr call = NewCall()) {
    auto promise = std::make_shared<std::promise<AnsweredCall>>();
    changes_->Handle(method, request.SerializeAsString(), call,
                     [promise](grpc::Status status, std::string response) {
                       promise->set_value({std::move(status), std::move(response)});
                     });
    return promise->get_future();
  }
  AnsweredCall Call(const std::string& method, const google::protobuf::Message& request,
                    Duration time = std::chrono::seconds(20)) {
    return Get(Begin(method, request, NewCall(time)));
  }
  v1::ForwardCallResponse CallForwarded(const std::string& method,
                                        const google::protobuf::Message& request,
                                        bool repeat = false,
                                        Duration time = std::chrono::seconds(20)) {
    v1::ForwardCallRequest forward;
    forward.set_method(method);
    forward.set_request(request.SerializeAsString());
    forward.set_repeat(repeat);
    return Get(BeginForwarded(forward, time));
  }
  std::future<v1::ForwardCallResponse> BeginForwarded(const v1::ForwardCallRequest& request,
                                                      Duration time = std::chrono::seconds(20)) {
    auto promise = std::make_shared<std::promise<v1::ForwardCallResponse>>();
    changes_->HandleForwarded(request, NewCall(time), [promise](v1::ForwardCallResponse response) {
      promise->set_value(std::move(response));
    });
    return promise->get_future();
  }
  static std::string ReasonOf(const v1::ForwardCallResponse& response) {
    google::rpc::Status status;
    EXPECT_TRUE(status.ParseFromString(response.status()));
    return DetailsOf(FromProto(status)).reason;
  }
  void NextResults(std::vector<raft::ChangeStatus> statuses) {
    std::lock_guard lock(mutex_);
    for (raft::ChangeStatus status : statuses) {
      raft::ChangeResult result;
      result.status = status;
      results_.push_back(result);
    }
  }
  v1::RemoveMemberRequest Remove(const std::string& name) {
    v1::RemoveMemberRequest request;
    request.set_node_id(name);
    return request;
  }
  v1::AddMemberRequest Add(const std::string& address) {
    v1::AddMemberRequest request;
    request.set_address(address);
    return request;
  }

  static constexpr Duration kHangs = std::chrono::seconds(30);
  struct Forwarded {
    StoreId leader;
    v1::ForwardCallRequest request;
  };
  std::mutex mutex_;
  raft::NodeStatus node_;
  bool unborn_ = false;
  bool hang_ = false;
  std::vector<raft::Node::ChangeDone> held_;
  std::deque<raft::ChangeResult> results_;
  std::vector<raft::MembershipChange> proposed_;
  std::map<std::string, v1::IdentifyResponse> nodes_;
  std::vector<Forwarded> forwarded_;
  // Which store has a name is asked of on_forward_, too, and kept in forwarded_.
  bool shows_questions_ = false;
  std::chrono::system_clock::duration left_{};
  std::function<grpc::Status(StoreId, v1::ForwardCallResponse*)> on_forward_;
  raft::TransferStatus transfer_ = raft::TransferStatus::kDone;
  StoreId transferred_;  // leads from the next view but so many on
  int shown_after_ = 0;
  bool nobody_takes_over_ = false;  // although the term is over
  std::function<void()> on_transfer_;
  std::vector<StoreId> targets_;
  std::vector<v1::Command> commands_;
  size_t pieces_ = 1;
  bool refuse_write_ = false;
  std::deque<ingress::Outcome> outcomes_;
  std::function<void()> on_write_;
  uint64_t hung_writes_ = 0;
  std::atomic<uint64_t> pinned_ = 0;
  std::set<std::string> silent_;  // addresses where a question stays open
  std::vector<PeerAsker::Done> questions_;
  std::vector<std::pair<std::string, bool>> asked_;
  std::map<std::string, int> ended_;
  bool joined_ = false;
  // After so many looks this node applies what was written.
  int lags_ = 0;
  bool applied_leases_ = false;
  std::atomic<int> cancelled_ = 0;
  Duration busy_wait_ = std::chrono::seconds(5);
  Duration change_time_max_ = std::chrono::minutes(1);
  std::unique_ptr<ClusterChanges> changes_;
};

}  // namespace quorate::services
