// How the state machine refuses a command: the codes of its answers, and how one is filled in.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "quorate/v1/command.pb.h"

namespace quorate::storage {

// google.rpc.Code
inline constexpr int32_t kCancelled = 1;
inline constexpr int32_t kInvalidArgument = 3;
inline constexpr int32_t kNotFound = 5;
inline constexpr int32_t kResourceExhausted = 8;
inline constexpr int32_t kFailedPrecondition = 9;
inline constexpr int32_t kAborted = 10;
inline constexpr int32_t kOutOfRange = 11;

// The command has no effect; `reason` is google.rpc.ErrorInfo's.
inline void Refuse(v1::Answer& answer, int32_t code, std::string_view reason, std::string message) {
  answer.set_code(code);
  answer.set_reason(std::string(reason));
  answer.set_message(std::move(message));
}

}  // namespace quorate::storage
