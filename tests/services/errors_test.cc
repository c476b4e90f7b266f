#include "services/errors.h"

#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"

namespace quorate::services {
namespace {

google::rpc::Status Parsed(const grpc::Status& status) {
  google::rpc::Status proto;
  EXPECT_TRUE(proto.ParseFromString(status.error_details()));
  return proto;
}

TEST(ErrorsTest, AnErrorCarriesItsReasonItsMetadataAndWhenToRetry) {
  const grpc::Status status =
      MakeError(grpc::StatusCode::UNAVAILABLE, "NO_LEADER", "no leader is known",
                {{"node", "node-1"}}, std::chrono::milliseconds(1250));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "no leader is known");

  const google::rpc::Status proto = Parsed(status);
  EXPECT_EQ(proto.code(), 14);
  EXPECT_EQ(proto.message(), "no leader is known");
  ASSERT_EQ(proto.details_size(), 2);
  EXPECT_EQ(proto.details(0).type_url(), "type.googleapis.com/google.rpc.ErrorInfo");
  EXPECT_EQ(proto.details(1).type_url(), "type.googleapis.com/google.rpc.RetryInfo");

  const ErrorDetails details = DetailsOf(status);
  EXPECT_EQ(details.reason, "NO_LEADER");
  EXPECT_EQ(details.metadata, (ErrorMetadata{{"node", "node-1"}}));
  EXPECT_EQ(details.retry_delay, Duration(std::chrono::milliseconds(1250)));
}

TEST(ErrorsTest, AFieldErrorNamesTheFieldTwice) {
  const grpc::Status status = MakeFieldError("KEY_EMPTY", "key", "must not be empty");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "key: must not be empty");
  EXPECT_EQ(DetailsOf(status).metadata.at("field"), "key");
  google::rpc::BadRequest bad;
  ASSERT_TRUE(Parsed(status).details(1).UnpackTo(&bad));
  ASSERT_EQ(bad.field_violations_size(), 1);
  EXPECT_EQ(bad.field_violations(0).field(), "key");
  EXPECT_EQ(bad.field_violations(0).description(), "must not be empty");
}

TEST(ErrorsTest, WhatIsNotBuiltYetIsNamed) {
  const grpc::Status status = MakeUnimplemented("Raft.TimeoutNow");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(DetailsOf(status).metadata.at("what"), "Raft.TimeoutNow");
}

TEST(ErrorsTest, AStatusSurvivesTheWayThroughItsProto) {
  const grpc::Status status =
      MakeError(grpc::StatusCode::ABORTED, "REVISION_MISMATCH", "is 7", {{"current", "7"}});
  const grpc::Status back = FromProto(ToProto(status));
  EXPECT_EQ(back.error_code(), status.error_code());
  EXPECT_EQ(back.error_message(), status.error_message());
  EXPECT_EQ(back.error_details(), status.error_details());
  EXPECT_TRUE(FromProto(ToProto(grpc::Status::OK)).ok());
}

TEST(ErrorsTest, TheSameErrorIsTheSameBytes) {
  const ErrorMetadata metadata = {{"a", "1"}, {"b", "2"}, {"c", "3"}, {"d", "4"}, {"e", "5"}};
  const auto make = [&] { return MakeError(grpc::StatusCode::ABORTED, "R", "m", metadata); };
  for (int i = 0; i < 20; ++i) EXPECT_EQ(make().error_details(), make().error_details());
}

// --- Errors in errors ---

TEST(ErrorsTest, BytesThatAreNoTextAndControlCharactersAreReplaced) {
  const grpc::Status status = MakeError(grpc::StatusCode::INTERNAL, "R",
                                        std::string("a\nb\xff\xc0\xaf\xed\xa0\x80 \xc3\xa4", 12),
                                        {{"k", std::string("\0x", 2)}});
  EXPECT_EQ(status.error_message(), "a?b?????? \xc3\xa4");
  EXPECT_EQ(DetailsOf(status).metadata.at("k"), "?x");
}

TEST(ErrorsTest, WhatIsTooLongIsCutSoThatTrailersStayBounded) {
  ErrorMetadata metadata;
  for (int i = 0; i < 100; ++i) metadata["key" + std::to_string(i)] = std::string(5000, 'v');
  const grpc::Status status =
      MakeError(grpc::StatusCode::INTERNAL, "R", std::string(100000, 'm'), metadata);
  EXPECT_LT(status.error_details().size(), 4096u);
  EXPECT_EQ(DetailsOf(status).metadata.size(), 8u);
}

TEST(ErrorsTest, AForeignStatusHasNoReasonOfOurs) {
  EXPECT_EQ(DetailsOf(grpc::Status(grpc::StatusCode::UNAVAILABLE, "socket closed")).reason, "");
  EXPECT_EQ(DetailsOf(grpc::Status(grpc::StatusCode::UNAVAILABLE, "m", "\xff\xff")).reason, "");
}

}  // namespace
}  // namespace quorate::services
