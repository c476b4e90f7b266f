// settings: how the whole cluster behaves.
#include "tools/cli.h"
#include "tools/output.h"

namespace quorate::tools {
namespace {

struct SettingsFlags {
  std::string leases;  // on, off; empty: only show
};

int ShowSettings(Invocation& invocation, const google::protobuf::Message& response,
                 const v1::Settings& settings) {
  if (invocation.structured()) {
    PrintStructured(invocation.io.out, invocation.format, ToJson(response));
  } else {
    invocation.io.out << "leases " << (settings.leases() ? "on" : "off") << '\n';
  }
  return kExitOk;
}

int Settings(Invocation& invocation, const SettingsFlags& flags) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  if (flags.leases.empty()) {
    v1::GetSettingsResponse response;
    const CallResult result = client->Read([&](Endpoint& endpoint, grpc::ClientContext* context) {
      return endpoint.cluster->GetSettings(context, v1::GetSettingsRequest(), &response);
    });
    if (!result.ok()) return Report(invocation.io.err, "settings", result);
    return ShowSettings(invocation, response, response.settings());
  }
  v1::SetSettingsRequest request;
  request.set_leases(flags.leases == "on");
  v1::SetSettingsResponse response;
  // As a read: to set it twice does no harm.
  const CallResult result =
      client->Run(CallKind::kRead, [&](Endpoint& endpoint, grpc::ClientContext* context) {
        return endpoint.cluster->SetSettings(context, request, &response);
      });
  if (!result.ok()) return Report(invocation.io.err, "settings", result);
  return ShowSettings(invocation, response, response.settings());
}

}  // namespace

void AddSettingsCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* settings =
      app.add_subcommand("settings", "show how the whole cluster behaves, or change it");
  auto flags = std::make_shared<SettingsFlags>();
  settings
      ->add_option("--leases", flags->leases,
                   "whether leaders may answer --consistency lease by their lease")
      ->check(CLI::IsMember({"on", "off"}));
  settings->callback([&invocation, flags] {
    invocation.action = [&invocation, flags] { return Settings(invocation, *flags); };
  });
}

}  // namespace quorate::tools
