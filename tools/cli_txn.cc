// txn, apply: many changes as one.
#include <iostream>
#include <set>

#include "tools/cli.h"
#include "tools/documents.h"
#include "tools/text.h"

namespace quorate::tools {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr char kTxnForm[] =
    "FILE is a JSON or YAML form of TxnRequest:\n"
    "  conditions:                      # all must hold; none: true\n"
    "    - {key: a, exists: true}       # or false\n"
    "    - {key: a, modRevision: 7}     # or createRevision, version, text, data (base64)\n"
    "    - {key: a, version: 3, comparison: greater}  # equal, not_equal, greater or less\n"
    "  then:                            # in order, one revision, all or nothing\n"
    "    - put: {key: a, text: new}     # or data: (base64); also ttlId: of a time-to-live\n"
    "    - delete: {key: b}             # or {prefix: b/}\n"
    "    - get: {key: c}\n"
    "    - list: {prefix: c/}           # also keysOnly: true, countOnly: true\n"
    "  else:                            # the same, when a condition does not hold\n"
    "    - get: {key: a}\n"
    "  note: why\n"
    "A condition that does not hold is no error: exit code 0, \"succeeded: false\";\n"
    "with --require, exit code 4.";

constexpr char kApplyForm[] =
    "FILE has items in YAML (one or many documents) or JSON, each an item, a list of items, or "
    "what\n"
    "`quorate list -o yaml` prints:\n"
    "  key: app/color\n"
    "  text: blue                       # or data: (base64), or delete: true\n"
    "  ttlId: 00000000000000a1          # bound to this time-to-live; without it plain\n"
    "All of them are written as one transaction (at most 512 items and 4 MiB), or none.\n"
    "--if-unchanged takes each item's modRevision for a condition (0: must not exist).";

// `comparison: greater` and `exists: true` in the terms of the proto.
absl::Status SpellOut(OrderedJson* condition) {
  if (!condition->is_object()) return absl::InvalidArgumentError("a condition is a mapping");
  if (condition->contains("exists")) {
    const OrderedJson exists = (*condition)["exists"];
    const bool yes = exists == true || exists == "true";
    if (!yes && exists != false && exists != "false") {
      return absl::InvalidArgumentError("exists: write true or false");
    }
    condition->erase("exists");
    if (condition->contains("comparison") || condition->contains("version")) {
      return absl::InvalidArgumentError("exists: goes alone with a key");
    }
    (*condition)["version"] = "0";
    (*condition)["comparison"] = yes ? "greater" : "equal";
  }
  OrderedJson& comparison = (*condition)["comparison"];
  if (comparison.is_null()) comparison = "equal";
  static const std::set<std::string> kShort = {"equal", "not_equal", "greater", "less"};
  if (comparison.is_string() && kShort.contains(comparison.get<std::string>())) {
    std::string name = "COMPARISON_" + comparison.get<std::string>();
    for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    comparison = name;
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::TxnRequest> ReadTxn(const std::string& file, std::istream& in) {
  absl::StatusOr<std::vector<OrderedJson>> documents = ReadDocuments(file, in);
  if (!documents.ok()) return documents.status();
  const std::string name = file == "-" ? "stdin" : Printable(file);
  if (documents->size() != 1 || !documents->front().is_object()) {
    return absl::InvalidArgumentError(name + ": is not one mapping: see `quorate txn --help`");
  }
  OrderedJson& json = documents->front();
  if (json.contains("conditions") && json["conditions"].is_array()) {
    int at = 0;
    for (OrderedJson& condition : json["conditions"]) {
      if (absl::Status status = SpellOut(&condition); !status.ok()) {
        return absl::InvalidArgumentError(name + ": conditions[" + std::to_string(at) +
                                          "]: " + std::string(status.message()));
      }
      ++at;
    }
  }
  v1::TxnRequest request;
  if (absl::Status status = FromJson(json, &request); !status.ok()) {
    return absl::InvalidArgumentError(name + ": " + std::string(status.message()));
  }
  return request;
}

void PrintItem(std::ostream& out, const v1::Item& item) {
  out << "  " << Printable(item.key()) << " @" << item.mod_revision() << " v" << item.version();
  if (item.has_text()) out << "  " << Printable(item.text(), 60);
  if (item.has_data()) out << "  <" << FormatBytes(item.data().size()) << ">";
  out << '\n';
}

void PrintResult(std::ostream& out, size_t number, const v1::TxnOperationResult& result) {
  out << number << ": ";
  switch (result.result_case()) {
    case v1::TxnOperationResult::kPut:
      out << "put, version " << result.put().version() << '\n';
      return;
    case v1::TxnOperationResult::kDelete:
      out << "deleted " << result.delete_().deleted() << '\n';
      return;
    case v1::TxnOperationResult::kGet:
      out << (result.get().has_item() ? "get\n" : "get, no such key\n");
      if (result.get().has_item()) PrintItem(out, result.get().item());
      return;
    case v1::TxnOperationResult::kList:
      out << "list, "
          << std::max<uint64_t>(result.list().count(),
                                static_cast<uint64_t>(result.list().items_size()))
          << " items\n";
      for (const v1::Item& item : result.list().items()) PrintItem(out, item);
      return;
    case v1::TxnOperationResult::RESULT_NOT_SET:
      out << "-\n";
  }
}

struct TxnOptions {
  std::string file;
  WriteFlags write;
  bool require = false;
};

int Txn(Invocation& invocation, const TxnOptions& options) {
  absl::StatusOr<v1::TxnRequest> request = ReadTxn(options.file, invocation.io.in);
  if (!request.ok()) {
    return invocation.Fail(kExitUsage, "txn: " + std::string(request.status().message()));
  }
  if (!options.write.note.empty()) request->set_note(options.write.note);
  options.write.Name(&*request);
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::TxnResponse response;
  const CallResult result = client->Write(&v1::Config::Stub::Txn, *request, &response);
  if (!result.ok()) return Report(invocation.io.err, "txn", result);
  std::ostream& out = invocation.io.out;
  if (invocation.structured()) {
    PrintStructured(out, invocation.format, ToJson(response));
  } else if (invocation.format == OutputFormat::kRaw) {
    out << response.header().revision() << '\n';
  } else if (!invocation.globals.quiet) {
    out << "succeeded: " << (response.succeeded() ? "true" : "false") << ", revision "
        << response.header().revision() << '\n';
    size_t number = 0;
    for (const v1::TxnOperationResult& one : response.results()) PrintResult(out, number++, one);
  }
  if (options.require && !response.succeeded()) {
    return invocation.Fail(kExitConflict, "txn: a condition does not hold");
  }
  return kExitOk;
}

// --- apply ---

struct ApplyOptions {
  std::vector<std::string> files;
  WriteFlags write;
  bool if_unchanged = false;
};

// Adds what one item asks for.
absl::Status AddTxnItem(const OrderedJson& json, bool if_unchanged, v1::TxnRequest* request) {
  if (!json.is_object()) return absl::InvalidArgumentError("an item is a mapping with a key");
  OrderedJson fields = json;
  bool remove = false;
  if (fields.contains("delete")) {
    remove = fields["delete"] == true || fields["delete"] == "true";
    if (!remove && fields["delete"] != false && fields["delete"] != "false") {
      return absl::InvalidArgumentError("delete: write true or false");
    }
    fields.erase("delete");
  }
  v1::Item item;
  if (absl::Status status = FromJson(fields, &item); !status.ok()) return status;
  if (item.key().empty()) return absl::InvalidArgumentError("the key is missing");
  if (remove == (item.value_case() != v1::Item::VALUE_NOT_SET)) {
    return absl::InvalidArgumentError("write one of text, data and delete: true");
  }
  if (if_unchanged) {
    if (!fields.contains("modRevision") && !fields.contains("mod_revision")) {
      return absl::InvalidArgumentError("--if-unchanged: the modRevision is missing");
    }
    v1::Condition* condition = request->add_conditions();
    condition->set_key(item.key());
    condition->set_comparison(v1::Condition::COMPARISON_EQUAL);
    condition->set_mod_revision(item.mod_revision());
  }
  v1::TxnOperation* operation = request->add_then();
  if (remove) {
    operation->mutable_delete_()->set_key(item.key());
    return absl::OkStatus();
  }
  operation->mutable_put()->set_key(item.key());
  if (item.has_text()) {
    operation->mutable_put()->set_text(item.text());
  } else {
    operation->mutable_put()->set_data(item.data());
  }
  // What was bound stays bound; that its time-to-live has ended meanwhile is for the user to know.
  operation->mutable_put()->set_ttl_id(item.ttl_id());
  return absl::OkStatus();
}

absl::Status AddFile(const std::string& file, std::istream& in, bool if_unchanged,
                     v1::TxnRequest* request) {
  const absl::StatusOr<std::vector<OrderedJson>> documents = ReadDocuments(file, in);
  if (!documents.ok()) return documents.status();
  const std::string name = file == "-" ? "stdin" : Printable(file);
  size_t number = 0;
  for (const OrderedJson& document : *documents) {
    const bool listing = document.is_object() && document.contains("items");
    const OrderedJson& items = listing ? document["items"] : document;
    for (const OrderedJson& item : items.is_array() ? items : OrderedJson::array({items})) {
      ++number;
      if (absl::Status status = AddTxnItem(item, if_unchanged, request); !status.ok()) {
        return absl::InvalidArgumentError(name + ": item " + std::to_string(number) + ": " +
                                          std::string(status.message()));
      }
    }
  }
  if (number == 0) return absl::InvalidArgumentError(name + ": holds no items");
  return absl::OkStatus();
}

int Apply(Invocation& invocation, const ApplyOptions& options) {
  v1::TxnRequest request;
  for (const std::string& file : options.files) {
    const absl::Status status = AddFile(file, invocation.io.in, options.if_unchanged, &request);
    if (!status.ok()) {
      return invocation.Fail(kExitUsage, "apply: " + std::string(status.message()));
    }
  }
  request.set_note(options.write.note);
  options.write.Name(&request);
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::TxnResponse response;
  const CallResult result = client->Write(&v1::Config::Stub::Txn, request, &response);
  if (!result.ok()) return Report(invocation.io.err, "apply", result);
  if (!response.succeeded()) {
    return invocation.Fail(kExitConflict,
                           "apply: an item has changed since; nothing was written: list the items "
                           "again and apply your changes to those");
  }
  if (invocation.structured()) {
    PrintStructured(invocation.io.out, invocation.format, ToJson(response));
  } else if (invocation.format == OutputFormat::kRaw) {
    invocation.io.out << response.header().revision() << '\n';
  } else if (!invocation.globals.quiet) {
    invocation.io.out << "applied " << request.then_size() << " items, revision "
                      << response.header().revision() << '\n';
  }
  return kExitOk;
}

}  // namespace

void AddTxnCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* txn = app.add_subcommand("txn", "conditions and changes as one transaction");
  auto txn_options = std::make_shared<TxnOptions>();
  txn->add_option("-f,--file", txn_options->file, "the transaction; - for stdin")->required();
  AddWriteFlags(txn, &txn_options->write);
  txn->add_flag("--require", txn_options->require, "fail when a condition does not hold");
  txn->footer(kTxnForm);
  txn->callback([&invocation, txn_options] {
    invocation.action = [&invocation, txn_options] { return Txn(invocation, *txn_options); };
  });

  CLI::App* apply = app.add_subcommand("apply", "write many items as one transaction");
  auto apply_options = std::make_shared<ApplyOptions>();
  apply->add_option("-f,--file", apply_options->files, "items; - for stdin; may be given often")
      ->required();
  AddWriteFlags(apply, &apply_options->write);
  apply->add_flag("--if-unchanged", apply_options->if_unchanged,
                  "only if no item has changed since its modRevision");
  apply->footer(kApplyForm);
  apply->callback([&invocation, apply_options] {
    invocation.action = [&invocation, apply_options] { return Apply(invocation, *apply_options); };
  });
}

}  // namespace quorate::tools
