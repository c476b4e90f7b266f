#include "storage/command_check.h"

#include <string>

#include "storage/state_schema.h"

namespace quorate::storage {
namespace {

bool HasUnknownFields(const google::protobuf::Message& message) {
  return !message.GetReflection()->GetUnknownFields(message).empty();
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
  } else if (HasUnknownFields(command) || HasUnknownFields(command.client_request()) ||
             HasUnknownFields(command.compact_history()) || HasUnknownFields(command.rollback()) ||
             HasUnknownFields(command.transaction()) || HasUnknownFields(command.grant_ttl()) ||
             HasUnknownFields(command.keep_alive_ttl()) || HasUnknownFields(command.revoke_ttl()) ||
             HasUnknownFields(command.expire_ttl()) || HasUnknownFields(command.set_settings())) {
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
