// What a command prints on stdout: a table for people, JSON or YAML for programs.
//
// JSON is proto3's own mapping (the one that grpcurl prints): lowerCamelCase names, 64-bit numbers
// as strings, bytes as base64. YAML has the same structure.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "google/protobuf/message.h"
#include "nlohmann/json.hpp"

namespace quorate::tools {

enum class OutputFormat {
  kDefault,  // the command's own: a table, or the bare value
  kTable,
  kJson,
  kYaml,
  kRaw,  // bytes and nothing else: a value, keys, a revision
};

// Rows below a line of capital headings, columns aligned, two spaces between. Cells are printed as
// they are: pass what comes from outside through Printable first.
class Table {
 public:
  explicit Table(std::vector<std::string> headings);
  // `headings.size()` cells; an empty one is shown as "-".
  void Add(std::vector<std::string> row);
  void Print(std::ostream& out) const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// Every field of the message, defaults included.
nlohmann::ordered_json ToJson(const google::protobuf::Message& message);

// kJson or kYaml.
void PrintStructured(std::ostream& out, OutputFormat format, const nlohmann::ordered_json& value);

}  // namespace quorate::tools
