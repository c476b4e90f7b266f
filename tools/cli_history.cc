// history, diff, rollback: the past of items.
#include <charconv>
#include <ctime>
#include <iostream>
#include <optional>

#include "services/utf8.h"
#include "tools/cli.h"
#include "tools/text.h"
#include "tools/text_diff.h"

namespace quorate::tools {
namespace {

std::string TimeText(int64_t time_ms) {
  const std::time_t seconds = time_ms / 1000;
  std::tm utc = {};
  char text[32];
  if (gmtime_r(&seconds, &utc) == nullptr ||
      std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0) {
    return std::to_string(time_ms);
  }
  return text;
}

std::string ChangeText(const v1::HistoryEntry& entry) {
  if (entry.deleted()) return "(deleted)";
  const v1::Item& item = entry.item();
  if (item.has_data()) return "<" + FormatBytes(item.data().size()) + ">";
  return item.text().empty() ? "\"\"" : Printable(item.text(), 60);
}

// --- history ---

struct HistoryOptions {
  std::string key;
  uint64_t limit = 100;
  std::string page_token;
  ReadFlags read;
};

int History(Invocation& invocation, const HistoryOptions& options) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::HistoryRequest request;
  request.set_key(options.key);
  request.set_page_token(options.page_token);
  *request.mutable_read() = invocation.read_options(options.read);
  Table table({"REVISION", "VERSION", "TIME", "AUTHOR", "NOTE", "VALUE"});
  nlohmann::ordered_json json = {{"header", nullptr}, {"entries", nlohmann::ordered_json::array()}};
  uint64_t left = options.limit;
  v1::HistoryResponse page;
  do {
    request.set_page_size(static_cast<uint32_t>(std::min<uint64_t>(left, 1000)));
    const CallResult result = client->Read([&](Endpoint& endpoint, grpc::ClientContext* context) {
      return endpoint.config->History(context, request, &page);
    });
    if (!result.ok()) {
      return Report(invocation.io.err, "history " + Printable(options.key), result);
    }
    json["header"] = ToJson(page.header());
    for (const v1::HistoryEntry& entry : page.entries()) {
      if (invocation.structured()) {
        json["entries"].push_back(ToJson(entry));
      } else if (invocation.format == OutputFormat::kRaw) {
        invocation.io.out << entry.item().mod_revision() << '\n';
      } else {
        table.Add({std::to_string(entry.item().mod_revision()),
                   std::to_string(entry.item().version()), TimeText(entry.time_ms()),
                   Printable(entry.author(), 30), Printable(entry.note(), 40), ChangeText(entry)});
      }
    }
    left -= std::min<uint64_t>(left, static_cast<uint64_t>(page.entries_size()));
    TurnPage(page.next_page_token(), &request);
  } while (left > 0 && !page.next_page_token().empty());
  if (invocation.structured()) {
    json["nextPageToken"] = page.next_page_token();
    PrintStructured(invocation.io.out, invocation.format, json);
  } else if (invocation.format != OutputFormat::kRaw) {
    table.Print(invocation.io.out);
    if (!page.next_page_token().empty() && !invocation.globals.quiet) {
      invocation.io.err << "quorate: there are older changes: --limit N, or --page-token "
                        << page.next_page_token() << '\n';
    }
  }
  return kExitOk;
}

// --- diff ---

struct DiffOptions {
  std::string key;
  std::string range;
  ReadFlags read;
};

// `A..B`, `A..` and `A`: both revisions, 0 for now; nullopt when it is something else.
std::optional<std::pair<uint64_t, uint64_t>> ParseRange(const std::string& text) {
  const auto number = [](std::string_view digits) -> std::optional<uint64_t> {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.begin(), digits.end(), value);
    if (error != std::errc() || end != digits.end() || value == 0) return std::nullopt;
    return value;
  };
  const size_t dots = text.find("..");
  const auto from = number(std::string_view(text).substr(0, dots));
  if (!from) return std::nullopt;
  if (dots == std::string::npos || dots + 2 == text.size()) return std::pair(*from, uint64_t{0});
  const auto to = number(std::string_view(text).substr(dots + 2));
  if (!to) return std::nullopt;
  return std::pair(*from, *to);
}

// The item at a revision; an absent key is no error but no item.
CallResult GetAt(Client& client, const Invocation& invocation, const DiffOptions& options,
                 uint64_t revision, v1::GetResponse* response) {
  v1::GetRequest request;
  request.set_key(options.key);
  *request.mutable_read() = invocation.read_options(options.read);
  request.mutable_read()->set_at_revision(revision);
  CallResult result = client.Read([&](Endpoint& endpoint, grpc::ClientContext* context) {
    return endpoint.config->Get(context, request, response);
  });
  if (result.status.error_code() == grpc::StatusCode::NOT_FOUND) {
    response->clear_item();
    result.status = grpc::Status::OK;
  }
  return result;
}

int Diff(Invocation& invocation, const DiffOptions& options) {
  const auto range = ParseRange(options.range);
  if (!range) {
    return invocation.Fail(kExitUsage, "diff: " + Printable(options.range) +
                                           ": write two revisions as A..B, or A.. for A and now");
  }
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::GetResponse sides[2];
  const uint64_t revisions[2] = {range->first, range->second};
  for (int i = 0; i < 2; ++i) {
    const CallResult result = GetAt(*client, invocation, options, revisions[i], &sides[i]);
    if (!result.ok()) return Report(invocation.io.err, "diff " + Printable(options.key), result);
  }
  if (!sides[0].has_item() && !sides[1].has_item()) {
    return invocation.Fail(kExitNotFound,
                           "diff " + Printable(options.key) + ": was there at neither revision");
  }
  std::ostream& out = invocation.io.out;
  if (invocation.structured()) {
    PrintStructured(out, invocation.format,
                    {{"a", ToJson(sides[0])["item"]}, {"b", ToJson(sides[1])["item"]}});
    return kExitOk;
  }
  const char* const prefixes[2] = {"--- ", "+++ "};
  for (int i = 0; i < 2; ++i) {
    out << prefixes[i] << Printable(options.key) << " @"
        << (revisions[i] == 0 ? "now" : std::to_string(revisions[i]))
        << (sides[i].has_item() ? "" : " (absent)") << '\n';
  }
  if (sides[0].item().has_data() || sides[1].item().has_data()) {
    const auto bytes = [](const v1::Item& item) {
      return item.has_data() ? item.data() : item.text();
    };
    out << (bytes(sides[0].item()) == bytes(sides[1].item()) ? "the same bytes\n"
                                                             : "binary values differ\n");
    return kExitOk;
  }
  const std::string text = DiffLines(sides[0].item().text(), sides[1].item().text());
  // A control character must not drive the terminal; line ends are ours.
  std::string_view rest(text);
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    out << (invocation.io.out_is_terminal ? Printable(line) : std::string(line)) << '\n';
    rest.remove_prefix(std::min(end, rest.size() - 1) + 1);
  }
  return kExitOk;
}

// --- rollback ---

struct RollbackOptions {
  std::string target;
  bool prefix = false;
  uint64_t to = 0;
  WriteFlags write;
};

int Rollback(Invocation& invocation, const RollbackOptions& options) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::RollbackRequest request;
  if (options.prefix || options.target.ends_with('/')) {
    request.set_prefix(options.target);
  } else {
    request.set_key(options.target);
  }
  request.set_to_revision(options.to);
  request.set_note(options.write.note);
  options.write.Name(&request);
  v1::RollbackResponse response;
  const CallResult result = client->Write(&v1::Config::Stub::Rollback, request, &response);
  if (!result.ok()) {
    return Report(invocation.io.err, "rollback " + Printable(options.target), result);
  }
  std::ostream& out = invocation.io.out;
  if (invocation.structured()) {
    PrintStructured(out, invocation.format, ToJson(response));
  } else if (invocation.format == OutputFormat::kRaw) {
    out << response.header().revision() << '\n';
  } else if (!invocation.globals.quiet) {
    out << Printable(options.target) << ": changed " << response.changed() << ", deleted "
        << response.deleted() << ", revision " << response.header().revision() << '\n';
  }
  return kExitOk;
}

}  // namespace

void AddHistoryCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* history = app.add_subcommand("history", "the changes of one key, newest first");
  auto history_options = std::make_shared<HistoryOptions>();
  history->add_option("KEY", history_options->key, "the item's key, deleted or not")->required();
  history->add_option("--limit", history_options->limit, "at most so many")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  history->add_option("--page-token", history_options->page_token,
                      "go on where an earlier one ended, at its revision");
  AddReadFlags(history, &history_options->read);
  history->callback([&invocation, history_options] {
    invocation.action = [&invocation, history_options] {
      return History(invocation, *history_options);
    };
  });

  CLI::App* diff = app.add_subcommand("diff", "what changed in one item between two revisions");
  auto diff_options = std::make_shared<DiffOptions>();
  diff->add_option("KEY", diff_options->key, "the item's key")->required();
  diff->add_option("A..B", diff_options->range, "two revisions; A.. for A and now")->required();
  AddReadFlags(diff, &diff_options->read, /*past=*/false);
  diff->callback([&invocation, diff_options] {
    invocation.action = [&invocation, diff_options] { return Diff(invocation, *diff_options); };
  });

  CLI::App* rollback =
      app.add_subcommand("rollback", "make a key or a prefix what it was at a revision");
  auto rollback_options = std::make_shared<RollbackOptions>();
  rollback
      ->add_option("KEY|PREFIX", rollback_options->target, "a key; what ends with / is a prefix")
      ->required();
  rollback->add_flag("--prefix", rollback_options->prefix, "it is a prefix however it ends");
  rollback->add_option("--to", rollback_options->to, "the revision")
      ->required()
      ->check(CLI::PositiveNumber);
  AddWriteFlags(rollback, &rollback_options->write);
  rollback->callback([&invocation, rollback_options] {
    invocation.action = [&invocation, rollback_options] {
      return Rollback(invocation, *rollback_options);
    };
  });
}

}  // namespace quorate::tools
