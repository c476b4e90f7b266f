// get, put, delete, list.
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>

#include "services/utf8.h"
#include "tools/cli.h"
#include "tools/listing.h"
#include "tools/text.h"

namespace quorate::tools {
namespace {

constexpr size_t kValueColumn = 60;

std::string_view ValueOf(const v1::Item& item) {
  return item.value_case() == v1::Item::kData ? item.data() : item.text();
}

std::string ValueCell(const v1::Item& item) {
  if (item.value_case() == v1::Item::kData) return "<" + FormatBytes(item.data().size()) + ">";
  return item.text().empty() ? "\"\"" : Printable(item.text(), kValueColumn);
}

Table ItemTable() { return Table({"KEY", "REVISION", "VERSION", "SIZE", "VALUE"}); }

void AddItem(Table& table, const v1::Item& item) {
  table.Add({Printable(item.key()), std::to_string(item.mod_revision()),
             std::to_string(item.version()), FormatBytes(ValueOf(item).size()), ValueCell(item)});
}

// --- get ---

struct GetOptions {
  std::string key;
  ReadFlags read;
};

int Get(Invocation& invocation, const GetOptions& options) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::GetRequest request;
  request.set_key(options.key);
  *request.mutable_read() = invocation.read_options(options.read);
  v1::GetResponse response;
  const CallResult result = client->Read([&](Endpoint& endpoint, grpc::ClientContext* context) {
    return endpoint.config->Get(context, request, &response);
  });
  if (!result.ok()) return Report(invocation.io.err, "get " + Printable(options.key), result);
  std::ostream& out = invocation.io.out;
  if (invocation.structured()) {
    PrintStructured(out, invocation.format, ToJson(response));
  } else if (invocation.format == OutputFormat::kTable) {
    Table table = ItemTable();
    AddItem(table, response.item());
    table.Print(out);
  } else {
    // The bytes as they are; on a terminal the prompt still begins on a line of its own.
    const std::string_view value = ValueOf(response.item());
    out << value;
    const bool open_line = !value.empty() && value.back() != '\n';
    if (open_line && invocation.io.out_is_terminal && invocation.format != OutputFormat::kRaw) {
      out << '\n';
    }
  }
  return kExitOk;
}

// --- put ---

struct PutOptions {
  std::string key;
  std::string value;
  bool has_value = false;
  std::optional<uint64_t> if_revision;
  bool if_absent = false;
  bool data = false;
  std::string ttl_id;
  WriteFlags write;
};

// The value that VALUE, @FILE or - names; nullopt after an error that was reported.
std::optional<std::string> ReadValue(const Invocation& invocation, const PutOptions& options) {
  const std::string& value = options.value;
  if (options.has_value && value.rfind("@@", 0) == 0) return value.substr(1);
  if (options.has_value && value != "-" && value.rfind('@', 0) != 0) return value;
  std::ifstream file;
  std::istream* in = &invocation.io.in;
  if (options.has_value && value != "-") {
    file.open(value.substr(1), std::ios::binary);
    in = &file;
  } else if (!options.has_value && invocation.io.in_is_terminal) {
    invocation.Fail(kExitUsage, "put " + Printable(options.key) +
                                    ": no value; write it, @FILE, or - for stdin");
    return std::nullopt;
  }
  // Bounded: what is too large for the server need not be read to its end.
  std::string bytes(8u << 20, '\0');
  in->read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  const auto size = static_cast<size_t>(in->gcount());
  if (in->bad() || (in == &file && !file.is_open())) {
    invocation.Fail(kExitError, "put " + Printable(options.key) + ": cannot read " +
                                    Printable(value.empty() ? "stdin" : value));
    return std::nullopt;
  }
  bytes.resize(size);
  return bytes;
}

int Put(Invocation& invocation, const PutOptions& options) {
  const std::optional<std::string> value = ReadValue(invocation, options);
  if (!value) return options.has_value ? kExitError : kExitUsage;
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::PutRequest request;
  request.set_key(options.key);
  if (!options.data && services::FindInvalidUtf8(*value) == std::string_view::npos) {
    request.set_text(*value);
  } else {
    request.set_data(*value);
  }
  if (options.if_revision) request.set_expected_revision(*options.if_revision);
  if (options.if_absent) request.set_expected_revision(0);
  request.set_ttl_id(options.ttl_id);
  request.set_note(options.write.note);
  options.write.Name(&request);
  v1::PutResponse response;
  const CallResult result = client->Write(&v1::Config::Stub::Put, request, &response);
  if (!result.ok()) return Report(invocation.io.err, "put " + Printable(options.key), result);
  std::ostream& out = invocation.io.out;
  if (invocation.structured()) {
    PrintStructured(out, invocation.format, ToJson(response));
  } else if (invocation.format == OutputFormat::kRaw) {
    out << response.header().revision() << '\n';
  } else if (!invocation.globals.quiet) {
    out << Printable(options.key) << ": revision " << response.header().revision() << ", version "
        << response.version() << '\n';
  }
  return kExitOk;
}

// --- delete ---

struct DeleteOptions {
  std::string key;
  std::string prefix;
  std::optional<uint64_t> if_revision;
  WriteFlags write;
};

int Delete(Invocation& invocation, const DeleteOptions& options) {
  if (options.key.empty() == options.prefix.empty()) {
    return invocation.Fail(kExitUsage, "delete: write a KEY or --prefix P, one of the two");
  }
  if (!options.prefix.empty() && options.if_revision) {
    return invocation.Fail(kExitUsage, "delete: --if-revision is for one KEY, not for --prefix");
  }
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::DeleteRequest request;
  if (options.prefix.empty()) {
    request.set_key(options.key);
  } else {
    request.set_prefix(options.prefix);
  }
  if (options.if_revision) request.set_expected_revision(*options.if_revision);
  request.set_note(options.write.note);
  options.write.Name(&request);
  v1::DeleteResponse response;
  const CallResult result = client->Write(&v1::Config::Stub::Delete, request, &response);
  const std::string name = Printable(options.key + options.prefix);
  if (!result.ok()) return Report(invocation.io.err, "delete " + name, result);
  std::ostream& out = invocation.io.out;
  if (invocation.structured()) {
    PrintStructured(out, invocation.format, ToJson(response));
  } else if (invocation.format == OutputFormat::kRaw) {
    out << response.deleted() << '\n';
  } else if (!invocation.globals.quiet) {
    out << name << ": deleted " << response.deleted() << ", revision "
        << response.header().revision() << '\n';
  }
  return kExitOk;
}

// --- list ---

struct ListOptions {
  std::string prefix;
  bool keys_only = false;
  bool count = false;
  uint64_t limit = 0;
  std::string page_token;
  ReadFlags read;
};

int Count(Invocation& invocation, Client& client, const ListOptions& options) {
  v1::ListRequest request;
  request.set_prefix(options.prefix);
  request.set_count_only(true);
  *request.mutable_read() = invocation.read_options(options.read);
  v1::ListResponse response;
  const CallResult result = client.Read([&](Endpoint& endpoint, grpc::ClientContext* context) {
    return endpoint.config->List(context, request, &response);
  });
  if (!result.ok()) return Report(invocation.io.err, "list " + Printable(options.prefix), result);
  if (invocation.structured()) {
    PrintStructured(invocation.io.out, invocation.format, ToJson(response));
  } else {
    invocation.io.out << response.count() << '\n';
  }
  return kExitOk;
}

int List(Invocation& invocation, const ListOptions& options) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  if (options.count) return Count(invocation, *client, options);
  const bool raw = invocation.format == OutputFormat::kRaw;
  v1::ListRequest request;
  request.set_prefix(options.prefix);
  request.set_keys_only(options.keys_only || raw);
  request.set_page_token(options.page_token);
  *request.mutable_read() = invocation.read_options(options.read);
  Table table = options.keys_only ? Table({"KEY", "REVISION", "VERSION"}) : ItemTable();
  nlohmann::ordered_json json = {{"header", nullptr}, {"items", nlohmann::ordered_json::array()}};
  std::string rest;
  const CallResult result =
      ListAll(*client, request, options.limit, [&](const v1::ListResponse& page) {
        rest = page.next_page_token();
        if (invocation.structured()) {
          json["header"] = ToJson(page.header());
          for (const v1::Item& item : page.items()) json["items"].push_back(ToJson(item));
          return true;
        }
        for (const v1::Item& item : page.items()) {
          if (raw) {
            invocation.io.out << item.key() << '\n';
          } else if (options.keys_only) {
            table.Add({Printable(item.key()), std::to_string(item.mod_revision()),
                       std::to_string(item.version())});
          } else {
            AddItem(table, item);
          }
        }
        return true;
      });
  if (!result.ok()) return Report(invocation.io.err, "list " + Printable(options.prefix), result);
  if (invocation.structured()) {
    json["nextPageToken"] = rest;
    PrintStructured(invocation.io.out, invocation.format, json);
  } else if (!raw) {
    table.Print(invocation.io.out);
  }
  if (!rest.empty() && !invocation.structured() && !invocation.globals.quiet) {
    invocation.io.err << "quorate: there are more: --page-token " << rest << '\n';
  }
  return kExitOk;
}

}  // namespace

void AddItemCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* get = app.add_subcommand("get", "print one value, byte for byte");
  auto get_options = std::make_shared<GetOptions>();
  get->add_option("KEY", get_options->key, "the item's key")->required();
  AddReadFlags(get, &get_options->read);
  get->callback([&invocation, get_options] {
    invocation.action = [&invocation, get_options] { return Get(invocation, *get_options); };
  });

  CLI::App* put = app.add_subcommand("put", "create or change one item");
  auto put_options = std::make_shared<PutOptions>();
  put->add_option("KEY", put_options->key, "the item's key")->required();
  CLI::Option* value = put->add_option(
      "VALUE", put_options->value,
      "the value itself (@@ for a leading @), @FILE for a file's content, - or nothing for stdin");
  CLI::Option* if_revision = put->add_option("--if-revision", put_options->if_revision,
                                             "only if the item's revision is still this one")
                                 ->check(CLI::NonNegativeNumber);
  put->add_flag("--if-absent", put_options->if_absent, "only if the key does not exist")
      ->excludes(if_revision);
  put->add_flag("--data", put_options->data, "as bytes, also when it is UTF-8 text");
  put->add_option(
      "--ttl-id", put_options->ttl_id,
      "bind the item to this time-to-live (see `quorate ttl grant`): it is deleted when "
      "that ends; without it the item is plain");
  AddWriteFlags(put, &put_options->write);
  put->callback([&invocation, put_options, value] {
    put_options->has_value = value->count() > 0;
    invocation.action = [&invocation, put_options] { return Put(invocation, *put_options); };
  });

  CLI::App* remove = app.add_subcommand("delete", "delete one key or every key of a prefix");
  auto delete_options = std::make_shared<DeleteOptions>();
  remove->add_option("KEY", delete_options->key, "the item's key");
  remove->add_option("--prefix", delete_options->prefix, "delete every key that begins so");
  remove
      ->add_option("--if-revision", delete_options->if_revision,
                   "only if the item's revision is still this one")
      ->check(CLI::NonNegativeNumber);
  AddWriteFlags(remove, &delete_options->write);
  remove->callback([&invocation, delete_options] {
    invocation.action = [&invocation, delete_options] {
      return Delete(invocation, *delete_options);
    };
  });

  CLI::App* list = app.add_subcommand("list", "list the items of a prefix, at one revision");
  auto list_options = std::make_shared<ListOptions>();
  list->add_option("PREFIX", list_options->prefix, "all keys without it");
  CLI::Option* keys_only =
      list->add_flag("--keys-only", list_options->keys_only, "leave the values out");
  CLI::Option* limit =
      list->add_option("--limit", list_options->limit,
                       "at most so many; what to give as --page-token to go on is said on stderr")
          ->check(CLI::PositiveNumber);
  CLI::Option* page_token = list->add_option(
      "--page-token", list_options->page_token,
      "go on where an earlier one with the same PREFIX and --keys-only ended, at its revision");
  list->add_flag("--count", list_options->count, "only say how many there are")
      ->excludes(keys_only)
      ->excludes(limit)
      ->excludes(page_token);
  AddReadFlags(list, &list_options->read);
  list->callback([&invocation, list_options] {
    invocation.action = [&invocation, list_options] { return List(invocation, *list_options); };
  });
}

}  // namespace quorate::tools
