// Transactions: their rules, their log form, and the client's answer.
//
// INVALID_ARGUMENT beside what services/validate.h has for each part, whose `field` is a path such
// as `then[2].put.key`: DUPLICATE_KEY, OPERATION_MISSING, INVALID_VALUE (a field that has no place
// within a transaction). RESOURCE_EXHAUSTED: TXN_TOO_MANY_OPERATIONS, TXN_TOO_LARGE.
//
// Pure functions; any thread.
#pragma once

#include <cstddef>
#include <string>

#include "grpcpp/support/status.h"
#include "quorate/v1/command.pb.h"
#include "quorate/v1/config.pb.h"

namespace quorate::services {

inline constexpr int kTxnOperationsMax = 512;  // conditions, and operations of each branch
inline constexpr size_t kTxnBytesMax = 4u << 20;

grpc::Status Validate(const v1::TxnRequest& request);
v1::Command ToCommand(const v1::TxnRequest& request);

// Fills everything but the header. False when the answer is not one to this request.
bool FillTxnResponse(const v1::TxnRequest& request, const v1::Answer& answer,
                     v1::TxnResponse* response);

}  // namespace quorate::services
