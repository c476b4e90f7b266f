// What the leader does about its members by itself. raft::Autopilot decides; it is done as an
// operator would, by the changes of the cluster (services/cluster_changes.h), which ask everybody
// concerned first and refuse what is not safe.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "services/errors.h"
#include "services/logging.h"
#include "services/server_impl.h"
#include "services/system_clock.h"

namespace quorate::services {
namespace {

constexpr Duration kAutopilotInterval = std::chrono::milliseconds(500);
constexpr Duration kStepTime = std::chrono::seconds(20);

}  // namespace

void Server::Impl::RunAutopilot(Instant now, const raft::NodeStatus& status) {
  if (!has_peer_port() || now < autopilot_at_) return;
  autopilot_at_ = now + kAutopilotInterval;
  std::optional<std::pair<raft::AutopilotStep, grpc::Status>> ended;
  {
    std::lock_guard lock(mutex_);
    ended = std::exchange(autopilot_ended_, std::nullopt);
  }
  if (ended) {
    const grpc::Status& result = ended->second;
    const std::string why = result.ok()                      ? ""
                            : result.error_message().empty() ? "no reason was given"
                                                             : result.error_message();
    autopilot_.OnEnded(ended->first, why, now);
    if (!why.empty()) {
      LogInfo("autopilot: not done, and will be tried again",
              {{"name", ended->first.name}, {"store", ended->first.store}, {"error", why}});
    }
  }
  const auto step = autopilot_.Next(now, status, birth_->Newcomers());
  SayWhatIsNotDone();
  if (!step) return;
  const bool let_in = step->kind == raft::AutopilotStep::Kind::kLetIn;
  LogInfo(let_in ? "autopilot: lets a node in" : "autopilot: gives a learner a vote",
          {{"name", step->name}, {"store", step->store}});
  std::string bytes;
  if (let_in) {
    v1::AddMemberRequest request;
    request.set_address(step->address);
    bytes = request.SerializeAsString();
  } else {
    v1::PromoteMemberRequest request;
    request.set_node_id(step->name);
    bytes = request.SerializeAsString();
  }
  changes_.HandleOwn(
      let_in ? "AddMember" : "PromoteMember", bytes, step->store, status.term,
      std::make_shared<CallContext>(now + kStepTime, std::map<std::string, std::string>()),
      [this, step = *step](grpc::Status done) {
        std::lock_guard lock(mutex_);
        autopilot_ended_.emplace(step, std::move(done));
      });
}

void Server::Impl::SayWhatIsNotDone() {
  std::vector<std::string> sentences;
  for (const raft::NotDone& each : autopilot_.not_done()) {
    const bool let_in = each.kind == raft::AutopilotStep::Kind::kLetIn;
    sentences.push_back(
        each.name + " (store " + ToHex(each.store) +
        (let_in ? ") waits and is not let in: " : ") learns and gets no vote yet: ") + each.why);
  }
  std::vector<std::string> before;
  {
    std::lock_guard lock(mutex_);
    before = std::exchange(not_done_, sentences);
  }
  for (const std::string& sentence : sentences) {
    const bool told = std::find(before.begin(), before.end(), sentence) != before.end();
    if (!told) LogWarning("autopilot: " + sentence, {});
  }
}

}  // namespace quorate::services
