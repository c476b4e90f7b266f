#include "tools/documents.h"

#include <fstream>
#include <iterator>

#include "google/protobuf/util/json_util.h"
#include "services/utf8.h"
#include "tools/text.h"
#include "yaml-cpp/yaml.h"

namespace quorate::tools {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kFileBytesMax = 16u << 20;
constexpr int kDocumentDepthMax = 64;

absl::StatusOr<std::string> ReadAll(const std::string& file, std::istream& in) {
  std::ifstream opened;
  std::istream* from = &in;
  if (file != "-") {
    opened.open(file, std::ios::binary);
    if (!opened.is_open()) return absl::NotFoundError("cannot be opened");
    from = &opened;
  }
  std::string text(kFileBytesMax + 1, '\0');
  from->read(text.data(), static_cast<std::streamsize>(text.size()));
  if (from->bad()) return absl::DataLossError("cannot be read");
  text.resize(static_cast<size_t>(from->gcount()));
  if (text.size() > kFileBytesMax) {
    return absl::ResourceExhaustedError("is larger than 16 MiB, more than one transaction takes");
  }
  if (services::FindInvalidUtf8(text) != std::string_view::npos) {
    return absl::InvalidArgumentError("is not UTF-8: write binary values in base64, as `data`");
  }
  return text;
}

// Throws YAML::Exception for what has no JSON form.
Json FromYaml(const YAML::Node& node, int depth) {
  if (depth > kDocumentDepthMax)
    throw YAML::RepresentationException(node.Mark(), "nested too deeply");
  switch (node.Type()) {
    case YAML::NodeType::Undefined:
    case YAML::NodeType::Null:
      return nullptr;
    case YAML::NodeType::Scalar:
      return node.Scalar();
    case YAML::NodeType::Sequence: {
      Json list = Json::array();
      for (const YAML::Node& entry : node) list.push_back(FromYaml(entry, depth + 1));
      return list;
    }
    case YAML::NodeType::Map:
      break;
  }
  Json map = Json::object();
  for (const auto& entry : node) {
    const std::string key = entry.first.as<std::string>();
    if (map.contains(key)) {
      throw YAML::RepresentationException(entry.first.Mark(), "`" + key + "` is there twice");
    }
    map[key] = FromYaml(entry.second, depth + 1);
  }
  return map;
}

}  // namespace

absl::StatusOr<std::vector<Json>> ReadDocuments(const std::string& file, std::istream& in) {
  const std::string name = file == "-" ? "stdin" : Printable(file);
  const absl::StatusOr<std::string> text = ReadAll(file, in);
  if (!text.ok()) {
    return absl::Status(text.status().code(),
                        absl::string_view(name + ": " + std::string(text.status().message())));
  }
  // JSON first: YAML reads most of it, but not every escape.
  Json json = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_discarded()) return std::vector<Json>{std::move(json)};
  std::vector<Json> documents;
  try {
    for (const YAML::Node& node : YAML::LoadAll(*text)) {
      if (node.IsNull() || !node.IsDefined()) continue;
      documents.push_back(FromYaml(node, 0));
    }
  } catch (const YAML::Exception& error) {
    std::string where = name;
    if (!error.mark.is_null()) where += ":" + std::to_string(error.mark.line + 1);
    return absl::InvalidArgumentError(where + ": is neither JSON nor YAML: " + error.msg);
  }
  return documents;
}

absl::Status FromJson(const Json& json, google::protobuf::Message* message) {
  const auto status = google::protobuf::util::JsonStringToMessage(json.dump(), message);
  if (status.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(std::string(status.message()));
}

}  // namespace quorate::tools
