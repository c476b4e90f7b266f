#include "services/request_parser.h"

#include <climits>
#include <optional>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/unknown_field_set.h"
#include "google/protobuf/wire_format_lite.h"
#include "services/errors.h"
#include "services/utf8.h"

namespace quorate::services {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;
using google::protobuf::internal::WireFormatLite;

// As protobuf's own parser has it.
constexpr int kDepthMax = 100;

const char* WireTypeName(int wire_type) {
  switch (wire_type) {
    case WireFormatLite::WIRETYPE_VARINT:
      return "a varint";
    case WireFormatLite::WIRETYPE_FIXED64:
      return "eight bytes";
    case WireFormatLite::WIRETYPE_LENGTH_DELIMITED:
      return "bytes with a length";
    case WireFormatLite::WIRETYPE_START_GROUP:
      return "a group";
    case WireFormatLite::WIRETYPE_END_GROUP:
      return "the end of a group";
    case WireFormatLite::WIRETYPE_FIXED32:
      return "four bytes";
    default:
      return "a wire type that does not exist";
  }
}

int WireTypeOf(const FieldDescriptor* field) {
  return WireFormatLite::WireTypeForFieldType(
      static_cast<WireFormatLite::FieldType>(field->type()));
}

std::string JoinPath(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

grpc::Status Malformed(const std::string& path, std::string_view what) {
  return MakeFieldError("INVALID_REQUEST", path.empty() ? "request" : path,
                        "not a protocol buffer message: " + std::string(what));
}

grpc::Status UnknownNumber(const std::string& path, const Descriptor* type, int number) {
  const std::string text = std::to_string(number);
  return MakeError(grpc::StatusCode::INVALID_ARGUMENT, "UNKNOWN_FIELD",
                   JoinPath(path, text) + ": " + type->full_name() + " has no field number " +
                       text + " in this build",
                   {{"field", JoinPath(path, text)}, {"number", text}});
}

grpc::Status WrongType(const std::string& path, const FieldDescriptor* field, int wire_type) {
  return MakeFieldError("WRONG_TYPE", JoinPath(path, field->name()),
                        std::string("is sent as ") + WireTypeName(wire_type) + ", but is " +
                            field->type_name() + ", which is sent as " +
                            WireTypeName(WireTypeOf(field)));
}

// One pass over the wire that stops at the first thing that a parser would stumble over.
class WireWalk {
 public:
  explicit WireWalk(std::string_view bytes) : bytes_(bytes) {}

  // OK: nothing found.
  grpc::Status Walk(const Descriptor* type, const std::string& path, size_t end, int depth) {
    if (depth > kDepthMax) return Malformed(path, "nested more than 100 deep");
    while (at_ < end) {
      const std::optional<uint64_t> tag = Varint(end);
      if (!tag) return Malformed(path, "it ends or breaks off in a tag");
      const uint64_t number = *tag >> 3;
      const int wire_type = static_cast<int>(*tag & 7);
      if (*tag > UINT32_MAX || number == 0) {
        return Malformed(path, "field number " + std::to_string(number) + " does not exist");
      }
      const FieldDescriptor* field = type->FindFieldByNumber(static_cast<int>(number));
      if (field == nullptr) return UnknownNumber(path, type, static_cast<int>(number));
      if (grpc::Status status = Field(field, wire_type, path, end, depth); !status.ok()) {
        return status;
      }
    }
    return grpc::Status::OK;
  }

 private:
  grpc::Status Field(const FieldDescriptor* field, int wire_type, const std::string& path,
                     size_t end, int depth) {
    const std::string name = JoinPath(path, field->name());
    const bool packed =
        field->is_packable() && wire_type == WireFormatLite::WIRETYPE_LENGTH_DELIMITED;
    if (wire_type != WireTypeOf(field) && !packed) return WrongType(path, field, wire_type);
    switch (wire_type) {
      case WireFormatLite::WIRETYPE_VARINT:
        return Varint(end) ? grpc::Status::OK : Malformed(name, "its number breaks off");
      case WireFormatLite::WIRETYPE_FIXED64:
        return Skip(8, end) ? grpc::Status::OK : Malformed(name, "it breaks off");
      case WireFormatLite::WIRETYPE_FIXED32:
        return Skip(4, end) ? grpc::Status::OK : Malformed(name, "it breaks off");
      default:
        break;  // bytes with a length: proto3 has no groups
    }
    const std::optional<uint64_t> length = Varint(end);
    if (!length) return Malformed(name, "its length breaks off");
    if (*length > end - at_) {
      return Malformed(name, "it says that it has " + std::to_string(*length) + " bytes, but " +
                                 std::to_string(end - at_) + " are left");
    }
    const size_t begin = at_;
    const size_t field_end = at_ + static_cast<size_t>(*length);
    if (field->type() == FieldDescriptor::TYPE_MESSAGE) {
      return Walk(field->message_type(), name, field_end, depth + 1);
    }
    at_ = field_end;
    if (field->type() == FieldDescriptor::TYPE_STRING) {
      const size_t bad = FindInvalidUtf8(bytes_.substr(begin, field_end - begin));
      if (bad != std::string_view::npos) {
        return MakeFieldError("INVALID_UTF8", name,
                              "is not UTF-8 (byte " + std::to_string(bad) + ")");
      }
    }
    return grpc::Status::OK;
  }

  // nullopt when it does not end before `end` or is longer than ten bytes.
  std::optional<uint64_t> Varint(size_t end) {
    uint64_t value = 0;
    for (int shift = 0; shift < 70 && at_ < end; shift += 7) {
      const unsigned char byte = static_cast<unsigned char>(bytes_[at_++]);
      if (shift < 64) value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if ((byte & 0x80) == 0) return value;
    }
    return std::nullopt;
  }

  bool Skip(size_t count, size_t end) {
    if (end - at_ < count) return false;
    at_ += count;
    return true;
  }

  const std::string_view bytes_;
  size_t at_ = 0;
};

// The first unknown field of a parsed message, in fields' order, outer before inner.
grpc::Status FindUnknown(const Message& message, const std::string& path) {
  const Reflection* reflection = message.GetReflection();
  const UnknownFieldSet& unknown = reflection->GetUnknownFields(message);
  if (!unknown.empty()) {
    const UnknownField& first = unknown.field(0);
    const FieldDescriptor* known = message.GetDescriptor()->FindFieldByNumber(first.number());
    if (known == nullptr) return UnknownNumber(path, message.GetDescriptor(), first.number());
    // Protobuf keeps a known field of another wire type among the unknown ones.
    static constexpr int kWireTypes[] = {
        WireFormatLite::WIRETYPE_VARINT, WireFormatLite::WIRETYPE_FIXED32,
        WireFormatLite::WIRETYPE_FIXED64, WireFormatLite::WIRETYPE_LENGTH_DELIMITED,
        WireFormatLite::WIRETYPE_START_GROUP};
    return WrongType(path, known, kWireTypes[first.type()]);
  }
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    const std::string name = JoinPath(path, field->name());
    if (!field->is_repeated()) {
      grpc::Status status = FindUnknown(reflection->GetMessage(message, field), name);
      if (!status.ok()) return status;
      continue;
    }
    for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
      grpc::Status status = FindUnknown(reflection->GetRepeatedMessage(message, field, i),
                                        name + "[" + std::to_string(i) + "]");
      if (!status.ok()) return status;
    }
  }
  return grpc::Status::OK;
}

}  // namespace

grpc::Status ParseRequest(std::string_view bytes, Message* message) {
  if (bytes.size() <= INT_MAX &&
      message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return FindUnknown(*message, "");
  }
  grpc::Status status = WireWalk(bytes).Walk(message->GetDescriptor(), "", bytes.size(), 1);
  // The walk knows every rule that we know of; should protobuf have one more, it is still a
  // refusal.
  if (status.ok()) return Malformed("", "it cannot be parsed");
  return status;
}

}  // namespace quorate::services
