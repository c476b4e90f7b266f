// ttl grant, keep-alive, revoke.
#include <algorithm>
#include <iostream>
#include <map>
#include <set>
#include <thread>
#include <vector>

#include "services/errors.h"
#include "services/system_clock.h"
#include "tools/cli.h"
#include "tools/interrupt.h"
#include "tools/text.h"
#include "tools/ttl_renewal.h"

namespace quorate::tools {
namespace {

using services::BootNow;
using std::chrono::milliseconds;

constexpr milliseconds kGrantMin(1000);
constexpr milliseconds kGrantMax(366LL * 24 * 3600 * 1000);
// A stream's renewals are all sent before the answers are read.
constexpr size_t kRenewedAtOnceMax = 1000;
// What could not be renewed is tried again so soon, and said so often.
constexpr milliseconds kRenewAgain(200);
constexpr Duration kRenewTroubleInterval = std::chrono::seconds(5);
constexpr milliseconds kInterruptPoll(20);

milliseconds MillisecondsOf(const google::protobuf::Duration& duration) {
  return std::chrono::duration_cast<milliseconds>(std::chrono::seconds(duration.seconds()) +
                                                  std::chrono::nanoseconds(duration.nanos()));
}

// --- grant ---

struct GrantOptions {
  std::string ttl;
  WriteFlags write;
};

int GrantTtl(Invocation& invocation, const GrantOptions& options) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::GrantTtlRequest request;
  const int64_t ms = ParseTime(options.ttl).value_or(kGrantMin).count();
  request.mutable_ttl()->set_seconds(ms / 1000);
  request.mutable_ttl()->set_nanos(static_cast<int32_t>(ms % 1000) * 1'000'000);
  options.write.Name(&request);
  v1::GrantTtlResponse response;
  const CallResult result = client->Write(&v1::Config::Stub::GrantTtl, request, &response);
  if (!result.ok()) return Report(invocation.io.err, "ttl grant", result);
  if (invocation.structured()) {
    PrintStructured(invocation.io.out, invocation.format, ToJson(response));
  } else if (invocation.format == OutputFormat::kTable) {
    Table table({"TTL-ID", "TTL"});
    table.Add({Printable(response.ttl_id()), FormatDuration(MillisecondsOf(response.ttl()))});
    table.Print(invocation.io.out);
  } else {
    invocation.io.out << Printable(response.ttl_id()) << '\n';  // for $(...)
  }
  return kExitOk;
}

// --- revoke ---

struct RevokeOptions {
  std::string ttl_id;
  WriteFlags write;
};

int RevokeTtl(Invocation& invocation, const RevokeOptions& options) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::RevokeTtlRequest request;
  request.set_ttl_id(options.ttl_id);
  options.write.Name(&request);
  v1::RevokeTtlResponse response;
  const CallResult result = client->Write(&v1::Config::Stub::RevokeTtl, request, &response);
  if (!result.ok()) {
    return Report(invocation.io.err, "ttl revoke " + Printable(options.ttl_id), result);
  }
  std::ostream& out = invocation.io.out;
  if (invocation.structured()) {
    PrintStructured(out, invocation.format, ToJson(response));
  } else if (invocation.format == OutputFormat::kRaw) {
    out << response.deleted() << '\n';
  } else if (!invocation.globals.quiet) {
    out << Printable(options.ttl_id) << ": revoked, deleted " << response.deleted() << ", revision "
        << response.header().revision() << '\n';
  }
  return kExitOk;
}

// --- keep-alive ---

struct KeepAliveOptions {
  std::vector<std::string> ids;
  bool once = false;
};

// Renews several until it is interrupted, or the cluster says that the last one has ended.
class KeepAlive {
 public:
  KeepAlive(Invocation& invocation, Client& client, const KeepAliveOptions& options)
      : invocation_(invocation),
        client_(client),
        once_(options.once),
        ids_(options.ids.begin(), options.ids.end()) {}

  int Run() {
    while (true) {
      const Instant sent = BootNow();
      if (!Round()) return exit_;
      if (once_ || ids_.empty()) return exit_;
      const Instant next = sent + std::max<Duration>(pause_, kInterruptPoll);
      while (!Interrupted() && BootNow() < next) std::this_thread::sleep_for(kInterruptPoll);
      if (Interrupted()) return kExitInterrupted;
    }
  }

 private:
  // False: it cannot go on.
  bool Round() {
    std::vector<v1::KeepAliveTtlResponse> answers;
    const std::vector<std::string> asked(ids_.begin(), ids_.end());
    const CallResult result = RenewTtls(client_, asked, &answers);
    if (!result.ok()) {
      if (!renewed_ || once_ || result.status.error_code() == grpc::StatusCode::INVALID_ARGUMENT) {
        exit_ = Report(invocation_.io.err, "ttl keep-alive", result);
        return false;
      }
      Trouble(Describe(result));
      pause_ = kRenewAgain;
      return true;
    }
    renewed_ = true;
    pause_ = kGrantMax;
    for (size_t i = 0; i < asked.size(); ++i) Take(asked[i], answers[i], result.address);
    invocation_.io.out.flush();
    return static_cast<bool>(invocation_.io.out);
  }

  void Take(const std::string& id, const v1::KeepAliveTtlResponse& answer,
            const std::string& address) {
    const CallResult result{StatusOf(answer), address};
    if (result.ok()) {
      pause_ = std::min(pause_, MillisecondsOf(answer.remaining()) / 3);
      Show(answer);
      return;
    }
    const bool ended = services::DetailsOf(result.status).reason == "TTL_NOT_FOUND";
    if (!ended && !once_ && result.status.error_code() != grpc::StatusCode::INVALID_ARGUMENT) {
      Trouble(Printable(id) + ": " + Describe(result));
      pause_ = std::min(pause_, kRenewAgain);
      return;
    }
    const int exit = Report(invocation_.io.err, "ttl keep-alive " + Printable(id), result);
    if (exit_ == kExitOk) exit_ = exit;
    ids_.erase(id);
  }

  void Show(const v1::KeepAliveTtlResponse& answer) {
    std::ostream& out = invocation_.io.out;
    if (invocation_.format == OutputFormat::kJson) {
      out << ToJson(answer).dump() << '\n';  // one line an answer
    } else if (invocation_.format == OutputFormat::kYaml) {
      out << "---\n";
      PrintStructured(out, OutputFormat::kYaml, ToJson(answer));
    } else if (invocation_.format == OutputFormat::kRaw) {
      out << MillisecondsOf(answer.remaining()).count() << '\n';
    } else if (!invocation_.globals.quiet) {
      out << Printable(answer.ttl_id()) << ": kept alive for "
          << FormatDuration(MillisecondsOf(answer.remaining())) << '\n';
    }
  }

  void Trouble(const std::string& text) {
    const Instant now = BootNow();
    if (invocation_.globals.quiet || (troubled_ && now - *troubled_ < kRenewTroubleInterval)) {
      return;
    }
    troubled_ = now;
    invocation_.io.err << "quorate: ttl keep-alive: " << text << "; trying again\n";
  }

  Invocation& invocation_;
  Client& client_;
  const bool once_;
  std::set<std::string> ids_;
  bool renewed_ = false;  // at least one round came through
  milliseconds pause_{};
  std::optional<Instant> troubled_;
  int exit_ = kExitOk;
};

int KeepAliveTtls(Invocation& invocation, const KeepAliveOptions& options) {
  if (options.ids.size() > kRenewedAtOnceMax) {
    return invocation.Fail(kExitUsage, "ttl keep-alive: 1,000 at most; run it more than once");
  }
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  const GracefulInterrupts graceful;
  return KeepAlive(invocation, *client, options).Run();
}

}  // namespace

void AddTtlCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* ttl =
      app.add_subcommand("ttl", "time-to-lives: what is bound to one is deleted when it ends");
  ttl->require_subcommand(1);

  CLI::App* grant = ttl->add_subcommand(
      "grant", "make one and print its id; it ends when it is not kept alive for its time");
  auto grant_options = std::make_shared<GrantOptions>();
  grant->add_option("TTL", grant_options->ttl, "1s to 366d")
      ->required()
      ->check(TimeWithin(kGrantMin, kGrantMax));
  AddWriteFlags(grant, &grant_options->write, /*noted=*/false);
  grant->callback([&invocation, grant_options] {
    invocation.action = [&invocation, grant_options] {
      return GrantTtl(invocation, *grant_options);
    };
  });

  CLI::App* keep_alive = ttl->add_subcommand(
      "keep-alive", "renew it every third of its time, until interrupted or it has ended (exit 3)");
  auto keep_options = std::make_shared<KeepAliveOptions>();
  keep_alive->add_option("TTL-ID", keep_options->ids, "as grant printed it; may be several")
      ->required();
  keep_alive->add_flag("--once", keep_options->once, "renew it now, and end");
  keep_alive->callback([&invocation, keep_options] {
    invocation.action = [&invocation, keep_options] {
      return KeepAliveTtls(invocation, *keep_options);
    };
  });

  CLI::App* revoke = ttl->add_subcommand("revoke", "end it now, and delete what is bound to it");
  auto revoke_options = std::make_shared<RevokeOptions>();
  revoke->add_option("TTL-ID", revoke_options->ttl_id, "as grant printed it")->required();
  AddWriteFlags(revoke, &revoke_options->write, /*noted=*/false);
  revoke->callback([&invocation, revoke_options] {
    invocation.action = [&invocation, revoke_options] {
      return RevokeTtl(invocation, *revoke_options);
    };
  });
}

}  // namespace quorate::tools
