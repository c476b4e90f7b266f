#include "services/txn.h"

#include <gtest/gtest.h>

#include "google/protobuf/text_format.h"
#include "services/errors.h"
#include "services/validate.h"

namespace quorate::services {
namespace {

v1::TxnRequest ParseTxn(const std::string& text) {
  v1::TxnRequest request;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
  return request;
}

// "OK", or "REASON field".
std::string CheckTxn(const v1::TxnRequest& request) {
  const grpc::Status status = Validate(request);
  if (status.ok()) return "OK";
  const ErrorDetails details = DetailsOf(status);
  const auto field = details.metadata.find(
      status.error_code() == grpc::StatusCode::UNIMPLEMENTED ? "what" : "field");
  EXPECT_NE(field, details.metadata.end()) << status.error_message();
  if (field == details.metadata.end()) return details.reason;
  EXPECT_EQ(status.error_message().rfind(field->second, 0), 0u) << status.error_message();
  return details.reason + " " + field->second;
}
std::string CheckTxn(const std::string& text) { return CheckTxn(ParseTxn(text)); }

constexpr char kLock[] =
    "conditions { key: 'lock' comparison: COMPARISON_EQUAL version: 0 }"
    "then { put { key: 'lock' text: 'me' } } then { list { prefix: 'jobs/' keys_only: true } }"
    "else { get { key: 'lock' } } note: 'why'";

TEST(Txn, BecomesACommand) {
  EXPECT_EQ(CheckTxn(kLock), "OK");
  EXPECT_EQ(ToCommand(ParseTxn(kLock)).ShortDebugString(),
            "note: \"why\" transaction { compare { key: \"lock\" result: RESULT_EQUAL version: 0 } "
            "then { put { key: \"lock\" value: \"me\" value_kind: VALUE_KIND_TEXT } } "
            "then { read { key: \"jobs/\" range_end: \"jobs0\" keys_only: true } } "
            "otherwise { read { key: \"lock\" } } }");
  EXPECT_EQ(
      ToCommand(ParseTxn("then { list { count_only: true } } then { delete { prefix: 'a' } }"))
          .ShortDebugString(),
      "transaction { then { read { range_end: \"\\000\" count_only: true } } "
      "then { delete { key: \"a\" range_end: \"b\" } } }");
  const v1::Command named = ToCommand(ParseTxn("request_id: 'r' request_revision: 9"));
  EXPECT_EQ(named.client_request().revision(), 9u);
  EXPECT_EQ(named.client_request().command_hash().size(), 16u);
}

TEST(Txn, ConditionsCompareAnything) {
  for (const char* target : {"mod_revision: 18446744073709551615", "create_revision: 0",
                             "version: 1", "text: ''", "data: '\\377'"}) {
    EXPECT_EQ(
        CheckTxn("conditions { key: 'a' comparison: COMPARISON_LESS " + std::string(target) + " }"),
        "OK");
  }
}

TEST(Txn, AnswersBecomeResultsOfTheBranchThatRan) {
  v1::Answer answer;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      "succeeded: true results { create_revision: 5 version: 1 }"
      "results { count: 1 items { key: 'jobs/1' create_revision: 2 mod_revision: 3 version: 2 } }",
      &answer));
  v1::TxnResponse response;
  ASSERT_TRUE(FillTxnResponse(ParseTxn(kLock), answer, &response));
  EXPECT_EQ(response.ShortDebugString(),
            "succeeded: true results { put { create_revision: 5 version: 1 } } results { list { "
            "items { key: \"jobs/1\" create_revision: 2 mod_revision: 3 version: 2 } } }");
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      "results { count: 1 items { key: 'lock' value: 'you' value_kind: VALUE_KIND_DATA } }",
      &answer));
  response.Clear();
  ASSERT_TRUE(FillTxnResponse(ParseTxn(kLock), answer, &response));
  EXPECT_EQ(response.ShortDebugString(),
            "results { get { item { key: \"lock\" data: \"you\" } } }");
  answer.mutable_results(0)->Clear();
  response.Clear();
  ASSERT_TRUE(FillTxnResponse(ParseTxn(kLock), answer, &response));
  EXPECT_EQ(response.ShortDebugString(), "results { get { } }") << "no such key";
}

TEST(Txn, KeysThatAreOnlyAlikeMayBeWrittenTogether) {
  EXPECT_EQ(CheckTxn("then { put { key: 'a' text: '' } } then { put { key: 'ab' text: '' } }"
                     "then { delete { prefix: 'b' } } then { delete { prefix: 'c' } }"
                     "then { delete { key: 'A' } } then { get { key: 'a' } }"
                     "then { list { prefix: 'b' } } else { put { key: 'a' text: '' } }"),
            "OK");
}

// --- Errors ---

TEST(Txn, AKeyWrittenTwiceIsRefused) {
  const std::string put = "then { put { key: 'a/b' text: '' } }";
  EXPECT_EQ(CheckTxn(put + put), "DUPLICATE_KEY then[1]");
  EXPECT_EQ(CheckTxn(put + "then { get { key: 'x' } } then { delete { key: 'a/b' } }"),
            "DUPLICATE_KEY then[2]");
  EXPECT_EQ(CheckTxn(put + "then { delete { prefix: 'a/' } }"), "DUPLICATE_KEY then[1]");
  EXPECT_EQ(CheckTxn(put + "then { delete { prefix: 'a/b' } }"), "DUPLICATE_KEY then[1]");
  EXPECT_EQ(CheckTxn("else { delete { prefix: 'a/' } } else { put { key: 'b' text: '' } }"
                     "else { delete { prefix: 'a/b/' } }"),
            "DUPLICATE_KEY else[2]");
  EXPECT_EQ(CheckTxn("then { delete { prefix: 'a' } } then { put { key: 'aa' text: '' } }"
                     "then { put { key: 'ab' text: '' } }"),
            "DUPLICATE_KEY then[1]");
}

TEST(Txn, WhatBelongsToTheTransactionIsRefusedWithin) {
  EXPECT_EQ(CheckTxn("then { put { key: 'a' text: '' expected_revision: 0 } }"),
            "INVALID_VALUE then[0].put.expected_revision");
  EXPECT_EQ(CheckTxn("else { delete { key: 'a' expected_revision: 1 } }"),
            "INVALID_VALUE else[0].delete.expected_revision");
  EXPECT_EQ(CheckTxn("then { put { key: 'a' text: '' note: 'n' } }"),
            "INVALID_VALUE then[0].put.note");
  EXPECT_EQ(CheckTxn("then { list { page_size: 3 } }"), "INVALID_VALUE then[0].list.page_size");
  EXPECT_EQ(CheckTxn("then { get { key: 'a' read { } } }"), "INVALID_VALUE then[0].get.read");
}

TEST(Txn, PartsHaveTheRulesOfTheirCalls) {
  EXPECT_EQ(CheckTxn("then { put { key: 'a' } }"), "VALUE_MISSING then[0].put.value");
  EXPECT_EQ(CheckTxn("then { get { key: 'a' } } then { put { key: '' text: '' } }"),
            "KEY_EMPTY then[1].put.key");
  EXPECT_EQ(CheckTxn("then { delete { } }"), "TARGET_MISSING then[0].delete.target");
  EXPECT_EQ(CheckTxn("then { }"), "OPERATION_MISSING then[0].operation");
  EXPECT_EQ(CheckTxn("then { put { key: 'a' text: '" + std::string((1 << 20) + 1, 'x') + "' } }"),
            "VALUE_TOO_LARGE then[0].put.text");
  EXPECT_EQ(CheckTxn("conditions { comparison: COMPARISON_EQUAL version: 0 }"),
            "KEY_EMPTY conditions[0].key");
  EXPECT_EQ(CheckTxn("conditions { key: 'a' version: 0 }"),
            "INVALID_VALUE conditions[0].comparison");
  EXPECT_EQ(CheckTxn("conditions { key: 'a' comparison: 9 version: 0 }"),
            "INVALID_VALUE conditions[0].comparison");
  EXPECT_EQ(CheckTxn("conditions { key: 'a' comparison: COMPARISON_EQUAL }"),
            "TARGET_MISSING conditions[0].target");
  EXPECT_EQ(CheckTxn("request_id: '" + std::string(129, 'r') + "'"),
            "REQUEST_ID_TOO_LARGE request_id");
  EXPECT_EQ(CheckTxn("request_revision: 1"), "INVALID_VALUE request_revision");
  EXPECT_EQ(CheckTxn("note: '" + std::string(1025, 'n') + "'"), "NOTE_TOO_LARGE note");
}

TEST(Txn, Limits) {
  v1::TxnRequest request;
  for (int i = 0; i < kTxnOperationsMax; ++i) request.add_then()->mutable_get()->set_key("a");
  EXPECT_EQ(CheckTxn(request), "OK");
  *request.mutable_else_() = request.then();
  EXPECT_EQ(CheckTxn(request), "OK") << "each branch by itself";
  request.add_else_()->mutable_get()->set_key("a");
  EXPECT_EQ(CheckTxn(request), "TXN_TOO_MANY_OPERATIONS else");
  v1::TxnRequest asks;
  for (int i = 0; i <= kTxnOperationsMax; ++i) asks.add_conditions()->set_key("a");
  EXPECT_EQ(CheckTxn(asks), "TXN_TOO_MANY_OPERATIONS conditions");
  v1::TxnRequest large;
  for (int i = 0; i < 4; ++i) {
    v1::PutRequest* put = large.add_then()->mutable_put();
    put->set_key(std::to_string(i));
    put->set_data(std::string((1 << 20) - 64, 'x'));
  }
  EXPECT_EQ(CheckTxn(large), "OK");
  large.add_then()->mutable_put()->set_key("more");
  large.mutable_then(4)->mutable_put()->set_text(std::string(1024, 'x'));
  EXPECT_EQ(CheckTxn(large), "TXN_TOO_LARGE request");
}

TEST(Txn, AnAnswerToAnotherRequestIsNone) {
  v1::Answer answer;
  answer.set_succeeded(true);
  v1::TxnResponse response;
  EXPECT_FALSE(FillTxnResponse(ParseTxn(kLock), answer, &response));
}

}  // namespace
}  // namespace quorate::services
