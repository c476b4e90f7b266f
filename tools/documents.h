// Files that people write for `txn` and `apply`: JSON or YAML, one document or many.
#pragma once

#include <istream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "nlohmann/json.hpp"

namespace quorate::tools {

// The documents of a file (`-`: of `in`), at most 16 MiB. JSON: one. YAML: all, those that are
// empty left out; a mapping's keys are texts, and so is every scalar but null (what a field takes
// is up to whoever fills it). Errors name the file, and the line where there is one.
absl::StatusOr<std::vector<nlohmann::ordered_json>> ReadDocuments(const std::string& file,
                                                                  std::istream& in);

// Fills an empty message from proto3's JSON. kInvalidArgument names what does not fit.
absl::Status FromJson(const nlohmann::ordered_json& json, google::protobuf::Message* message);

}  // namespace quorate::tools
