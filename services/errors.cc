#include "services/errors.h"

#include <algorithm>
#include <chrono>

#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/rpc/error_details.pb.h"

namespace quorate::services {
namespace {

constexpr size_t kMessageBytesMax = 1024;
constexpr size_t kPrintedBytesMax = 256;
constexpr size_t kMetadataEntriesMax = 8;

// Invalid UTF-8 would make a string field that no client can parse; a control character could
// forge a log line. Both become '?'; cut at a character's border.
std::string Printable(std::string_view text, size_t bytes_max) {
  std::string out;
  out.reserve(std::min(text.size(), bytes_max));
  size_t i = 0;
  while (i < text.size()) {
    const auto byte = static_cast<unsigned char>(text[i]);
    size_t length = byte < 0x80 ? 1 : byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc2 ? 2 : 0;
    if (byte >= 0xf5) length = 0;
    bool good = length != 0 && i + length <= text.size() && byte >= 0x20 && byte != 0x7f;
    for (size_t k = 1; good && k < length; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      unsigned char low = 0x80;
      unsigned char high = 0xbf;
      if (k == 1) {  // RFC 3629, section 4: no overlong forms, no surrogates, nothing above 10FFFF
        if (byte == 0xe0) low = 0xa0;
        if (byte == 0xed) high = 0x9f;
        if (byte == 0xf0) low = 0x90;
        if (byte == 0xf4) high = 0x8f;
      }
      good = next >= low && next <= high;
    }
    const std::string_view piece = good ? text.substr(i, length) : std::string_view("?");
    if (out.size() + piece.size() > bytes_max) break;
    out += piece;
    i += good ? length : 1;
  }
  return out;
}

// Maps are written in key order, so that one error is the same bytes on every node.
std::string Deterministic(const google::protobuf::MessageLite& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  return bytes;
}

void AddDetail(google::rpc::Status* status, const google::protobuf::Message& detail) {
  auto* any = status->add_details();
  any->set_type_url("type.googleapis.com/" + detail.GetDescriptor()->full_name());
  any->set_value(Deterministic(detail));
}

google::rpc::ErrorInfo MakeErrorInfo(std::string_view reason, const ErrorMetadata& metadata) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain(kErrorDomain);
  size_t count = 0;
  for (const auto& [key, value] : metadata) {
    if (++count > kMetadataEntriesMax) break;
    (*info.mutable_metadata())[Printable(key, 64)] = Printable(value, kPrintedBytesMax);
  }
  return info;
}

}  // namespace

grpc::Status MakeError(grpc::StatusCode code, std::string_view reason, std::string_view message,
                       const ErrorMetadata& metadata, std::optional<Duration> retry_delay) {
  google::rpc::Status proto;
  proto.set_code(code);
  proto.set_message(Printable(message, kMessageBytesMax));
  AddDetail(&proto, MakeErrorInfo(reason, metadata));
  if (retry_delay) {
    const auto us = std::max<int64_t>(retry_delay->count(), 0);
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(us / 1'000'000);
    retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(us % 1'000'000) * 1000);
    AddDetail(&proto, retry);
  }
  return grpc::Status(code, proto.message(), Deterministic(proto));
}

grpc::Status MakeFieldError(std::string_view reason, std::string_view field,
                            std::string_view description) {
  google::rpc::Status proto;
  proto.set_code(grpc::StatusCode::INVALID_ARGUMENT);
  const std::string field_text = Printable(field, kPrintedBytesMax);
  const std::string description_text = Printable(description, kMessageBytesMax);
  proto.set_message(field_text + ": " + description_text);
  AddDetail(&proto, MakeErrorInfo(reason, {{"field", field_text}}));
  google::rpc::BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field(field_text);
  violation->set_description(description_text);
  AddDetail(&proto, bad);
  return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, proto.message(), Deterministic(proto));
}

grpc::Status Within(std::string_view path, const grpc::Status& status) {
  if (status.ok()) return status;
  const std::string before = std::string(path) + ".";
  google::rpc::Status proto = ToProto(status);
  proto.set_message(Printable(before + proto.message(), kMessageBytesMax));
  for (auto& any : *proto.mutable_details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    if (any.Is<google::rpc::ErrorInfo>() && any.UnpackTo(&info)) {
      for (const char* key : {"field", "what"}) {
        const auto found = info.mutable_metadata()->find(key);
        if (found == info.mutable_metadata()->end()) continue;
        found->second = Printable(before + found->second, kPrintedBytesMax);
      }
      any.set_value(Deterministic(info));
    } else if (any.Is<google::rpc::BadRequest>() && any.UnpackTo(&bad)) {
      for (auto& violation : *bad.mutable_field_violations()) {
        violation.set_field(Printable(before + violation.field(), kPrintedBytesMax));
      }
      any.set_value(Deterministic(bad));
    }
  }
  return grpc::Status(status.error_code(), proto.message(), Deterministic(proto));
}

grpc::Status MakeUnimplemented(std::string_view what) {
  return MakeError(grpc::StatusCode::UNIMPLEMENTED, "NOT_IN_THIS_BUILD",
                   std::string(what) + " is not in this build yet", {{"what", std::string(what)}});
}

ErrorDetails DetailsOf(const grpc::Status& status) {
  ErrorDetails details;
  google::rpc::Status proto;
  if (status.error_details().empty() || !proto.ParseFromString(status.error_details())) {
    return details;
  }
  for (const auto& any : proto.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::RetryInfo retry;
    if (any.Is<google::rpc::ErrorInfo>() && any.UnpackTo(&info) && info.domain() == kErrorDomain) {
      details.reason = info.reason();
      details.metadata = ErrorMetadata(info.metadata().begin(), info.metadata().end());
    } else if (any.Is<google::rpc::RetryInfo>() && any.UnpackTo(&retry)) {
      details.retry_delay = std::chrono::seconds(retry.retry_delay().seconds()) +
                            std::chrono::microseconds(retry.retry_delay().nanos() / 1000);
    }
  }
  return details;
}

grpc::Status AddMetadata(const grpc::Status& status, const ErrorMetadata& metadata) {
  ErrorDetails details = DetailsOf(status);
  details.metadata.insert(metadata.begin(), metadata.end());
  return MakeError(status.error_code(), details.reason, status.error_message(), details.metadata,
                   details.retry_delay);
}

google::rpc::Status ToProto(const grpc::Status& status) {
  google::rpc::Status proto;
  if (status.error_details().empty() || !proto.ParseFromString(status.error_details())) {
    proto.Clear();
  }
  proto.set_code(status.error_code());
  proto.set_message(Printable(status.error_message(), kMessageBytesMax));
  return proto;
}

grpc::Status FromProto(const google::rpc::Status& status) {
  if (status.code() == 0) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), status.message(),
                      Deterministic(status));
}

}  // namespace quorate::services
