#include "services/request_parser.h"

#include <gtest/gtest.h>

#include "quorate/v1/config.pb.h"
#include "services/errors.h"

namespace quorate::services {
namespace {

// The wire, by hand.
std::string Varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}
std::string Number(int field, uint64_t value) {
  return Varint(static_cast<uint64_t>(field) << 3) + Varint(value);
}
std::string Bytes(int field, const std::string& value) {
  return Varint(static_cast<uint64_t>(field) << 3 | 2) + Varint(value.size()) + value;
}

struct RefusedRequest {
  std::string reason;
  std::string field;
  std::string message;
};

template <typename Request>
RefusedRequest Refuse(const std::string& bytes) {
  Request request;
  const grpc::Status status = ParseRequest(bytes, &request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
  const ErrorDetails details = DetailsOf(status);
  const auto field = details.metadata.find("field");
  return {details.reason, field == details.metadata.end() ? "" : field->second,
          status.error_message()};
}

TEST(RequestParser, TakesWhatProtobufMakes) {
  v1::PutRequest sent;
  sent.set_key("a/\xC3\xA9");
  sent.set_text("b");
  sent.set_expected_revision(0);
  sent.set_note("why");
  v1::PutRequest read;
  EXPECT_TRUE(ParseRequest(sent.SerializeAsString(), &read).ok());
  EXPECT_EQ(read.SerializeAsString(), sent.SerializeAsString());
  EXPECT_TRUE(read.has_expected_revision());
}

TEST(RequestParser, TakesAnEmptyMessage) {
  v1::ListRequest read;
  EXPECT_TRUE(ParseRequest("", &read).ok());
}

TEST(RequestParser, TakesDataThatIsNoText) {
  v1::PutRequest read;
  EXPECT_TRUE(ParseRequest(Bytes(1, "k") + Bytes(3, "\xFF\xFE"), &read).ok());
  EXPECT_EQ(read.data(), "\xFF\xFE");
}

// --- Errors ---

TEST(RequestParser, NamesTheFieldThatIsNoText) {
  const RefusedRequest text = Refuse<v1::PutRequest>(Bytes(1, "k") + Bytes(2, "a\xFFz"));
  EXPECT_EQ(text.reason, "INVALID_UTF8");
  EXPECT_EQ(text.field, "text");
  EXPECT_NE(text.message.find("byte 1"), std::string::npos) << text.message;
  EXPECT_EQ(Refuse<v1::PutRequest>(Bytes(1, "\xED\xA0\x80")).field, "key");
  EXPECT_EQ(Refuse<v1::PutRequest>(Bytes(1, "k") + Bytes(7, "\xC0")).field, "note");
  EXPECT_EQ(Refuse<v1::DeleteRequest>(Bytes(2, "p\x80")).field, "prefix");
}

TEST(RequestParser, NamesTheNestedFieldThatIsNoText) {
  const std::string operation = Bytes(3, Bytes(1, "k\xFF"));
  const RefusedRequest refused = Refuse<v1::TxnRequest>(Bytes(2, operation));
  EXPECT_EQ(refused.reason, "INVALID_UTF8");
  EXPECT_EQ(refused.field, "then.put.key");
}

TEST(RequestParser, NamesAnUnknownFieldByItsNumber) {
  const RefusedRequest refused = Refuse<v1::PutRequest>(Bytes(1, "k") + Number(99, 1));
  EXPECT_EQ(refused.reason, "UNKNOWN_FIELD");
  EXPECT_EQ(refused.field, "99");
  EXPECT_NE(refused.message.find("quorate.v1.PutRequest has no field number 99"), std::string::npos)
      << refused.message;
}

TEST(RequestParser, NamesANestedUnknownField) {
  const std::string request = Bytes(1, "k") + Bytes(2, Number(1, 1) + Bytes(77, "x"));
  const RefusedRequest refused = Refuse<v1::GetRequest>(request);
  EXPECT_EQ(refused.reason, "UNKNOWN_FIELD");
  EXPECT_EQ(refused.field, "read.77");
  EXPECT_EQ(Refuse<v1::TxnRequest>(Bytes(2, "") + Bytes(2, Number(9, 1))).field, "then[1].9");
}

TEST(RequestParser, NamesAFieldOfAnotherWireType) {
  // Protobuf itself would take this as a request without a key.
  const RefusedRequest refused = Refuse<v1::GetRequest>(Number(1, 7));
  EXPECT_EQ(refused.reason, "WRONG_TYPE");
  EXPECT_EQ(refused.field, "key");
  EXPECT_EQ(Refuse<v1::GetRequest>(Bytes(2, Bytes(2, "x"))).field, "read.min_revision");
}

TEST(RequestParser, SaysWhereItBreaksOff) {
  const std::string whole = Bytes(1, "key") + Bytes(2, "a value");
  const RefusedRequest length = Refuse<v1::PutRequest>(whole.substr(0, whole.size() - 1));
  EXPECT_EQ(length.reason, "INVALID_REQUEST");
  EXPECT_EQ(length.field, "text");
  EXPECT_NE(length.message.find("7 bytes, but 6 are left"), std::string::npos) << length.message;
  // In the middle of a tag, of a length and of a number.
  EXPECT_EQ(Refuse<v1::PutRequest>("\x80").reason, "INVALID_REQUEST");
  EXPECT_EQ(Refuse<v1::PutRequest>("\x0A\x80").field, "key");
  EXPECT_EQ(Refuse<v1::PutRequest>("\x20\xFF").field, "expected_revision");
}

TEST(RequestParser, RefusesWhatIsNoMessageAtAll) {
  EXPECT_EQ(Refuse<v1::PutRequest>(std::string(1, '\0')).reason, "INVALID_REQUEST");  // field 0
  EXPECT_EQ(Refuse<v1::PutRequest>(std::string(12, '\xFF')).reason, "INVALID_REQUEST");
  // Group end without a start, and wire types that do not exist.
  EXPECT_EQ(Refuse<v1::PutRequest>("\x0C").reason, "WRONG_TYPE");
  EXPECT_EQ(Refuse<v1::PutRequest>("\x0E").reason, "WRONG_TYPE");
}

// Every prefix of a good request and every flipped bit: parsed or refused by name, never anything
// else, and never a refusal without a reason.
TEST(RequestParser, EveryDamagedRequestIsParsedOrRefusedByName) {
  v1::ListRequest request;
  request.set_prefix("a/b");
  request.set_page_size(300);
  request.set_keys_only(true);
  request.mutable_read()->mutable_max_staleness()->set_seconds(500);
  request.mutable_read()->set_min_revision(1u << 20);
  const std::string good = request.SerializeAsString();
  std::vector<std::string> damaged;
  for (size_t size = 0; size < good.size(); ++size) damaged.push_back(good.substr(0, size));
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    damaged.push_back(good);
    damaged.back()[bit / 8] = static_cast<char>(damaged.back()[bit / 8] ^ (1 << bit % 8));
  }
  size_t refused = 0;
  for (const std::string& bytes : damaged) {
    v1::ListRequest read;
    const grpc::Status status = ParseRequest(bytes, &read);
    if (status.ok()) continue;
    ++refused;
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_FALSE(DetailsOf(status).reason.empty());
    EXPECT_FALSE(DetailsOf(status).metadata["field"].empty());
  }
  EXPECT_GT(refused, damaged.size() / 4);
}

}  // namespace
}  // namespace quorate::services
