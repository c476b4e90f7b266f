#include "storage/command_check.h"

#include <string>

#include "storage/state_schema.h"

namespace quorate::storage {
namespace {

// At any depth: what this node would leave out without noticing.
bool HasUnknownFields(const google::protobuf::Message& message) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  if (!reflection.GetUnknownFields(message).empty()) return true;
  const google::protobuf::Descriptor& type = *message.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const google::protobuf::FieldDescriptor* const field = type.field(i);
    if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      if (!reflection.HasField(message, field)) continue;
      if (HasUnknownFields(reflection.GetMessage(message, field))) return true;
      continue;
    }
    const int count = reflection.FieldSize(message, field);
    for (int k = 0; k < count; ++k) {
      if (HasUnknownFields(reflection.GetRepeatedMessage(message, field, k))) return true;
    }
  }
  return false;
}

}  // namespace

absl::Status DecodeCommand(std::string_view bytes, v1::Command& command) {
  if (!command.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InvalidArgumentError("cannot be parsed");
  }
  // To skip what one node does not know and others do would let their states part for ever.
  std::string unknown;
  if (command.format() > kCommandFormat || command.format() == 0) {
    unknown = "has format " + std::to_string(command.format());
  } else if (command.body_case() == v1::Command::BODY_NOT_SET) {
    unknown = "has a body";
  } else if (HasUnknownFields(command)) {
    unknown = "has fields";
  }
  if (unknown.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(unknown +
                                       ", which this build does not know (it knows format " +
                                       std::to_string(kCommandFormat) + ")");
}

absl::Status CheckCommand(std::string_view bytes) {
  v1::Command command;
  return DecodeCommand(bytes, command);
}

}  // namespace quorate::storage
