#include "tools/cli_lock_contender.h"

#include <map>
#include <optional>
#include <ostream>
#include <utility>

#include "tools/interrupt.h"
#include "tools/text.h"
#include "tools/watcher.h"

namespace quorate::tools {
namespace {

class Listener {
 public:
  Listener(Invocation& invocation, const std::string& name)
      : invocation_(invocation), name_(name) {}

  int Run(Client& client) {
    WatcherOptions watcher;
    watcher.request.set_prefix(name_ + "/");
    watcher.request.set_with_initial_state(true);
    watcher.request.mutable_progress_interval()->set_seconds(5);
    watcher.timeout = invocation_.timeout;
    watcher.stop = [] { return Interrupted(); };
    const CallResult result =
        Watcher(
            client, watcher, [this](const v1::WatchResponse& message) { return Hear(message); },
            [](const CallResult&, uint64_t) {})
            .Run();
    if (Interrupted()) return kExitInterrupted;
    if (result.ok()) return kExitOk;
    return Report(invocation_.io.err, "elect " + Printable(name_), result);
  }

 private:
  bool Hear(const v1::WatchResponse& message) {
    // A state from the beginning takes the place of what is known.
    if ((message.started() || message.reset()) && message.resume_revision() == 0) {
      keys_.clear();
      in_state_ = true;
    }
    if (message.synced()) in_state_ = false;
    for (const v1::WatchEvent& event : message.events()) {
      if (event.type() == v1::WatchEvent::TYPE_DELETE || !IsContender(name_, event.item())) {
        keys_.erase(event.item().key());
      } else {
        keys_[event.item().key()] = event.item();
      }
    }
    if (!in_state_ && !message.partial()) Show();
    return static_cast<bool>(invocation_.io.out);
  }

  void Show() {
    const v1::Item* leader = nullptr;
    for (const auto& [key, item] : keys_) {
      if (leader == nullptr || item.create_revision() < leader->create_revision()) leader = &item;
    }
    const std::pair<std::string, uint64_t> now =
        leader == nullptr ? std::pair<std::string, uint64_t>("", 0)
                          : std::pair(leader->key(), leader->mod_revision());
    if (shown_ == now) return;
    shown_ = now;
    std::ostream& out = invocation_.io.out;
    if (invocation_.format == OutputFormat::kJson) {
      out << (leader == nullptr ? nlohmann::ordered_json() : ToJson(*leader)).dump() << '\n';
    } else if (leader == nullptr) {
      out << "-\n";
    } else {
      out << Printable(leader->key()) << ' ' << Printable(leader->text()) << '\n';
    }
    out.flush();
  }

  Invocation& invocation_;
  const std::string& name_;
  bool in_state_ = false;
  std::map<std::string, v1::Item> keys_;  // of contenders
  std::optional<std::pair<std::string, uint64_t>> shown_;
};

}  // namespace

bool MayContend(const std::string& name, const std::string& key) {
  constexpr size_t kIdDigits = 16;
  return key.size() == name.size() + 1 + kIdDigits && key.starts_with(name + "/") &&
         key.find_first_not_of("0123456789abcdef", name.size() + 1) == std::string::npos;
}

bool IsContender(const std::string& name, const v1::Item& item) {
  return !item.ttl_id().empty() && item.key() == name + "/" + item.ttl_id();
}

int ListenToElection(Invocation& invocation, Client& client, const std::string& name) {
  return Listener(invocation, name).Run(client);
}

}  // namespace quorate::tools
