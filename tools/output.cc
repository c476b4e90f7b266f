#include "tools/output.h"

#include <algorithm>

#include "base/check.h"
#include "google/protobuf/util/json_util.h"
#include "tools/text.h"
#include "yaml-cpp/yaml.h"

namespace quorate::tools {
namespace {

void EmitYaml(YAML::Emitter& out, const nlohmann::ordered_json& value) {
  if (value.is_object()) {
    if (value.empty()) {
      out << YAML::Flow << YAML::BeginMap << YAML::EndMap;
      return;
    }
    out << YAML::BeginMap;
    for (const auto& [key, member] : value.items()) {
      out << YAML::Key << key << YAML::Value;
      EmitYaml(out, member);
    }
    out << YAML::EndMap;
  } else if (value.is_array()) {
    if (value.empty()) {
      out << YAML::Flow << YAML::BeginSeq << YAML::EndSeq;
      return;
    }
    out << YAML::BeginSeq;
    for (const auto& element : value) EmitYaml(out, element);
    out << YAML::EndSeq;
  } else if (value.is_string()) {
    // Always quoted: "1", "true" and "~" stay strings.
    out << YAML::DoubleQuoted << value.get<std::string>();
  } else if (value.is_boolean()) {
    out << value.get<bool>();
  } else {
    out << value.dump();
  }
}

}  // namespace

Table::Table(std::vector<std::string> headings) { rows_.push_back(std::move(headings)); }

void Table::Add(std::vector<std::string> row) {
  CHECK(row.size() == rows_.front().size());
  for (std::string& cell : row) {
    if (cell.empty()) cell = "-";
  }
  rows_.push_back(std::move(row));
}

void Table::Print(std::ostream& out) const {
  std::vector<size_t> widths(rows_.front().size());
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) {
      out << row[i];
      if (i + 1 < row.size()) out << std::string(widths[i] - Width(row[i]) + 2, ' ');
    }
    out << '\n';
  }
}

nlohmann::ordered_json ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
  CHECK(status.ok(), status.ToString());
  return nlohmann::ordered_json::parse(text);
}

void PrintStructured(std::ostream& out, OutputFormat format, const nlohmann::ordered_json& value) {
  if (format == OutputFormat::kYaml) {
    YAML::Emitter emitter;
    EmitYaml(emitter, value);
    out << emitter.c_str() << '\n';
    return;
  }
  out << value.dump(2) << '\n';
}

}  // namespace quorate::tools
