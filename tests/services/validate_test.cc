#include "services/validate.h"

#include <gtest/gtest.h>

#include "google/protobuf/text_format.h"
#include "services/errors.h"

namespace quorate::services {
namespace {

template <typename Request>
Request ParseText(const std::string& text) {
  Request request;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
  return request;
}

// "OK", or "CODE REASON what", where what is the field or the thing that is not built.
std::string Outcome(const grpc::Status& status) {
  if (status.ok()) return "OK";
  const char* code = status.error_code() == grpc::StatusCode::INVALID_ARGUMENT ? "INVALID_ARGUMENT"
                     : status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED
                         ? "RESOURCE_EXHAUSTED"
                     : status.error_code() == grpc::StatusCode::UNIMPLEMENTED ? "UNIMPLEMENTED"
                                                                              : "?";
  const ErrorDetails details = DetailsOf(status);
  const auto find = [&](const char* key) {
    const auto it = details.metadata.find(key);
    return it == details.metadata.end() ? std::string() : it->second;
  };
  return std::string(code) + " " + details.reason + " " + find("field") + find("what");
}

template <typename Request>
std::string Check(const std::string& text) {
  return Outcome(Validate(ParseText<Request>(text)));
}

constexpr auto Get = Check<v1::GetRequest>;
constexpr auto List = Check<v1::ListRequest>;
constexpr auto Put = Check<v1::PutRequest>;
constexpr auto Delete = Check<v1::DeleteRequest>;

TEST(Validate, TakesWhatTheContractAllows) {
  EXPECT_EQ(Get("key: 'a'"), "OK");
  EXPECT_EQ(Get("key: ' /\\303\\251/ \\302\\205'"), "OK");  // C1 controls are not forbidden
  EXPECT_EQ(Get("key: 'a' read { consistency: CONSISTENCY_LOCAL }"), "OK");
  EXPECT_EQ(Get("key: 'a' read { consistency: CONSISTENCY_LEASE }"), "OK");
  EXPECT_EQ(Get("key: 'a' read { consistency: CONSISTENCY_LINEARIZABLE }"), "OK");
  EXPECT_EQ(List("read { min_revision: 1 at_revision: 1 }"), "OK");
  EXPECT_EQ(Get("key: 'a' read { max_staleness { } }"), "OK");
  EXPECT_EQ(List(""), "OK");
  EXPECT_EQ(List("prefix: 'a/' page_size: 1000 keys_only: true"), "OK");
  EXPECT_EQ(List("prefix: 'a/' count_only: true"), "OK");
  EXPECT_EQ(Put("key: 'a' text: ''"), "OK");
  EXPECT_EQ(Put("key: 'a' data: ''"), "OK");
  EXPECT_EQ(Put("key: 'a' text: 'b' expected_revision: 0 note: 'why\\n'"), "OK");
  EXPECT_EQ(Delete("key: 'a' expected_revision: 7"), "OK");
  EXPECT_EQ(Delete("prefix: 'a' note: 'why'"), "OK");
}

TEST(Validate, SizesAreAllowedUpToTheLimit) {
  EXPECT_EQ(Get("key: '" + std::string(1024, 'k') + "'"), "OK");
  EXPECT_EQ(List("prefix: '" + std::string(1024, 'k') + "'"), "OK");
  EXPECT_EQ(Put("key: 'a' text: '" + std::string(1 << 20, 'v') + "'"), "OK");
  EXPECT_EQ(Put("key: 'a' data: '" + std::string(1 << 20, 'v') + "'"), "OK");
  EXPECT_EQ(Put("key: 'a' text: '' note: '" + std::string(1024, 'n') + "'"), "OK");
}

TEST(Validate, RollbackAndHistory) {
  constexpr auto kRollback = Check<v1::RollbackRequest>;
  constexpr auto kHistory = Check<v1::HistoryRequest>;
  EXPECT_EQ(kRollback("key: 'a' to_revision: 1"), "OK");
  EXPECT_EQ(kRollback("key: 'a'"), "INVALID_ARGUMENT INVALID_VALUE to_revision");
  EXPECT_EQ(kRollback("to_revision: 1"), "INVALID_ARGUMENT TARGET_MISSING target");
  EXPECT_EQ(kRollback("prefix: '' to_revision: 1"), "INVALID_ARGUMENT PREFIX_EMPTY prefix");
  EXPECT_EQ(kRollback("key: '' to_revision: 1"), "INVALID_ARGUMENT KEY_EMPTY key");
  EXPECT_EQ(kHistory("key: 'a' page_size: 1000"), "OK");
  EXPECT_EQ(kHistory("key: 'a' page_size: 1001"), "INVALID_ARGUMENT INVALID_VALUE page_size");
  EXPECT_EQ(kHistory("key: 'a' page_token: 't' read { at_revision: 1 }"),
            "INVALID_ARGUMENT INVALID_VALUE read.at_revision");
  EXPECT_EQ(ToCommand(ParseText<v1::RollbackRequest>("prefix: 'a/' to_revision: 7 note: 'n'"))
                .ShortDebugString(),
            "note: \"n\" rollback { key: \"a/\" range_end: \"a0\" to_revision: 7 }");
}

TEST(Validate, ARequestIdNamesWhatWasAskedFor) {
  const auto named = [](const std::string& text) {
    return ToCommand(ParseText<v1::PutRequest>("key: 'a' text: 'b' " + text)).client_request();
  };
  const v1::ClientRequest first = named("request_id: 'r' request_revision: 7");
  EXPECT_EQ(first.id(), "r");
  EXPECT_EQ(first.revision(), 7u);
  EXPECT_EQ(first.command_hash().size(), 16u);
  EXPECT_EQ(named("request_id: 's'").command_hash(), first.command_hash())
      << "a repeat may be sent with another revision; the id is compared by itself";
  EXPECT_NE(named("request_id: 'r' note: 'n'").command_hash(), first.command_hash());
  EXPECT_NE(named("request_id: 'r' expected_revision: 0").command_hash(), first.command_hash());
  EXPECT_NE(ToCommand(ParseText<v1::DeleteRequest>("key: 'a' request_id: 'r'"))
                .client_request()
                .command_hash(),
            ToCommand(ParseText<v1::DeleteRequest>("prefix: 'a' request_id: 'r'"))
                .client_request()
                .command_hash());
  EXPECT_FALSE(ToCommand(ParseText<v1::PutRequest>("key: 'a' text: ''")).has_client_request());
  EXPECT_EQ(Put("key: 'a' text: '' request_id: '" + std::string(128, 'r') + "'"), "OK");
  EXPECT_EQ(Put("key: 'a' text: '' request_id: '" + std::string(129, 'r') + "'"),
            "RESOURCE_EXHAUSTED REQUEST_ID_TOO_LARGE request_id");
  EXPECT_EQ(Delete("key: 'a' request_revision: 1"),
            "INVALID_ARGUMENT INVALID_VALUE request_revision");
}

TEST(Validate, APutBecomesATransaction) {
  const v1::Command command =
      ToCommand(ParseText<v1::PutRequest>("key: 'a' text: 'b' note: 'n' expected_revision: 5"));
  EXPECT_EQ(
      command.ShortDebugString(),
      "note: \"n\" transaction { compare { key: \"a\" result: RESULT_EQUAL "
      "mod_revision: 5 } then { put { key: \"a\" value: \"b\" value_kind: VALUE_KIND_TEXT } } "
      "abort_on_false: true }");
  EXPECT_EQ(ToCommand(ParseText<v1::PutRequest>("key: 'a' data: 'b'")).ShortDebugString(),
            "transaction { then { put { key: \"a\" value: \"b\" value_kind: "
            "VALUE_KIND_DATA } } }");
  // 0 is asked for, not absent: only if the key does not exist.
  EXPECT_EQ(ToCommand(ParseText<v1::PutRequest>("key: 'a' data: '' expected_revision: 0"))
                .transaction()
                .compare_size(),
            1);
}

TEST(Validate, ADeleteBecomesARange) {
  EXPECT_EQ(ToCommand(ParseText<v1::DeleteRequest>("key: 'a'")).ShortDebugString(),
            "transaction { then { delete { key: \"a\" } } }");
  EXPECT_EQ(ToCommand(ParseText<v1::DeleteRequest>("prefix: 'a/'")).ShortDebugString(),
            "transaction { then { delete { key: \"a/\" range_end: \"a0\" } } }");
  EXPECT_EQ(PrefixEnd("a"), "b");
  EXPECT_EQ(PrefixEnd("\xC3\xBF"), "\xC3\xC0");  // between characters: bytewise order
}

// --- Errors ---

TEST(Validate, NamesWhatIsWrongWithAKey) {
  EXPECT_EQ(Get(""), "INVALID_ARGUMENT KEY_EMPTY key");
  EXPECT_EQ(Put("text: 'b'"), "INVALID_ARGUMENT KEY_EMPTY key");
  EXPECT_EQ(Delete("key: ''"), "INVALID_ARGUMENT KEY_EMPTY key");
  for (const char* control : {"\\000", "\\n", "\\037", "\\177"}) {
    EXPECT_EQ(Get(std::string("key: 'a") + control + "'"),
              "INVALID_ARGUMENT KEY_CONTROL_CHARACTER key")
        << control;
  }
  EXPECT_EQ(List("prefix: 'a\\t'"), "INVALID_ARGUMENT KEY_CONTROL_CHARACTER prefix");
  EXPECT_EQ(Delete("prefix: 'a\\t'"), "INVALID_ARGUMENT KEY_CONTROL_CHARACTER prefix");
}

TEST(Validate, NamesWhatIsTooLargeAndByHowMuch) {
  const std::string key(1025, 'k');
  EXPECT_EQ(Get("key: '" + key + "'"), "RESOURCE_EXHAUSTED KEY_TOO_LARGE key");
  EXPECT_EQ(List("prefix: '" + key + "'"), "RESOURCE_EXHAUSTED KEY_TOO_LARGE prefix");
  EXPECT_EQ(Delete("key: '" + key + "'"), "RESOURCE_EXHAUSTED KEY_TOO_LARGE key");
  EXPECT_EQ(Delete("prefix: '" + key + "'"), "RESOURCE_EXHAUSTED KEY_TOO_LARGE prefix");
  const std::string value((1 << 20) + 1, 'v');
  EXPECT_EQ(Put("key: 'a' text: '" + value + "'"), "RESOURCE_EXHAUSTED VALUE_TOO_LARGE text");
  EXPECT_EQ(Put("key: 'a' data: '" + value + "'"), "RESOURCE_EXHAUSTED VALUE_TOO_LARGE data");
  EXPECT_EQ(Put("key: 'a' text: '' note: '" + key + "'"), "RESOURCE_EXHAUSTED NOTE_TOO_LARGE note");
  EXPECT_EQ(Delete("key: 'a' note: '" + key + "'"), "RESOURCE_EXHAUSTED NOTE_TOO_LARGE note");
  EXPECT_EQ(List("page_token: '" + std::string(2049, 'A') + "'"),
            "RESOURCE_EXHAUSTED PAGE_TOKEN_TOO_LARGE page_token");

  v1::GetRequest request;
  request.set_key(key);
  const ErrorDetails details = DetailsOf(Validate(request));
  EXPECT_EQ(details.metadata.at("limit"), "1024");
  EXPECT_EQ(details.metadata.at("size"), "1025");
}

TEST(Validate, NamesWhatIsMissingOrDoesNotGoTogether) {
  EXPECT_EQ(Put("key: 'a'"), "INVALID_ARGUMENT VALUE_MISSING value");
  EXPECT_EQ(Delete(""), "INVALID_ARGUMENT TARGET_MISSING target");
  EXPECT_EQ(Delete("prefix: ''"), "INVALID_ARGUMENT PREFIX_EMPTY prefix");
  EXPECT_EQ(Delete("prefix: 'a' expected_revision: 1"),
            "INVALID_ARGUMENT INVALID_VALUE expected_revision");
  EXPECT_EQ(List("page_size: 1001"), "INVALID_ARGUMENT INVALID_VALUE page_size");
  EXPECT_EQ(List("count_only: true page_size: 1"), "INVALID_ARGUMENT INVALID_VALUE page_size");
  EXPECT_EQ(List("count_only: true page_token: 'x'"), "INVALID_ARGUMENT INVALID_VALUE page_token");
  EXPECT_EQ(List("count_only: true keys_only: true"), "INVALID_ARGUMENT INVALID_VALUE keys_only");
}

TEST(Validate, NamesAReadThatCannotBe) {
  EXPECT_EQ(Get("key: 'a' read { max_staleness { seconds: -1 } }"),
            "INVALID_ARGUMENT INVALID_VALUE read.max_staleness");
  EXPECT_EQ(Get("key: 'a' read { max_staleness { nanos: -1 } }"),
            "INVALID_ARGUMENT INVALID_VALUE read.max_staleness");
  EXPECT_EQ(Get("key: 'a' read { max_staleness { nanos: 1000000000 } }"),
            "INVALID_ARGUMENT INVALID_VALUE read.max_staleness");
  EXPECT_EQ(List("read { max_staleness { seconds: 315576000001 } }"),
            "INVALID_ARGUMENT INVALID_VALUE read.max_staleness");
  v1::GetRequest request;
  request.set_key("a");
  request.mutable_read()->set_consistency(static_cast<v1::Consistency>(9));
  EXPECT_EQ(Outcome(Validate(request)), "INVALID_ARGUMENT INVALID_VALUE read.consistency");
}

TEST(Validate, NamesATimeToLiveThatIsNone) {
  EXPECT_EQ(Put("key: 'a' text: '' ttl_id: '00000000000000a1'"), "OK");
  EXPECT_EQ(Put("key: 'a' text: '' ttl_id: 'x'"), "INVALID_ARGUMENT INVALID_VALUE ttl_id");
}

}  // namespace
}  // namespace quorate::services
