// Every field of every request, by reflection: a field with a value that is not its default is
// either handled (the table below says by whom) or refused as not in this build yet, by name. A
// field that is added to a proto and forgotten in the code fails here.
#include <gtest/gtest.h>

#include <future>
#include <map>
#include <set>
#include <string>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "quorate/v1/cluster.pb.h"
#include "quorate/v1/config.pb.h"
#include "services/cluster_service.h"
#include "services/config_service.h"
#include "services/errors.h"
#include "services/watch_service.h"
#include "tests/services/fake_backend.h"

namespace quorate::services {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::MethodDescriptor;
using google::protobuf::Reflection;
using google::protobuf::ServiceDescriptor;

constexpr Instant kWalkStart{std::chrono::seconds(1000)};

// Handled: the field's path, and a request (text format) that is valid with it. Each one's effect
// is tested where it is implemented (config_service_test, validate_test, storage).
const std::map<std::string, std::string> kHandled = {
    {"DrainRequest.undo", "undo: true"},
    {"ListMembersRequest.links", "links: true"},
    {"GetRequest.key", "key: 'a'"},
    {"GetRequest.read.max_staleness.seconds", "key: 'a' read { max_staleness { seconds: 1 } }"},
    {"GetRequest.read.max_staleness.nanos", "key: 'a' read { max_staleness { nanos: 999999999 } }"},
    {"GetRequest.read.consistency", "key: 'a' read { consistency: CONSISTENCY_LINEARIZABLE }"},
    {"HistoryRequest.read.consistency", "key: 'a' read { consistency: CONSISTENCY_LINEARIZABLE }"},
    {"HistoryRequest.read.min_revision", "key: 'a' read { min_revision: 1 }"},
    {"GetRequest.read.min_revision", "key: 'a' read { min_revision: 1 }"},
    {"ListRequest.read.consistency", "read { consistency: CONSISTENCY_LINEARIZABLE }"},
    {"ListRequest.read.min_revision", "read { min_revision: 1 }"},
    {"ListRequest.prefix", "prefix: 'a'"},
    {"ListRequest.page_size", "page_size: 1"},
    {"ListRequest.keys_only", "keys_only: true"},
    {"ListRequest.count_only", "count_only: true"},
    {"ListRequest.read.max_staleness.seconds", "read { max_staleness { seconds: 1 } }"},
    {"ListRequest.read.max_staleness.nanos", "read { max_staleness { nanos: 999999999 } }"},
    {"PutRequest.key", "key: 'a' text: 'v'"},
    {"PutRequest.text", "key: 'a' text: 'v'"},
    {"PutRequest.data", "key: 'a' data: 'v'"},
    {"PutRequest.expected_revision", "key: 'a' text: 'v' expected_revision: 7"},
    {"PutRequest.ttl_id", "key: 'a' text: 'v' ttl_id: '00000000000000a1'"},
    {"GrantTtlRequest.ttl.seconds", "ttl { seconds: 1 }"},
    {"GrantTtlRequest.ttl.nanos", "ttl { seconds: 1 nanos: 1 }"},
    {"GrantTtlRequest.request_id", "ttl { seconds: 1 } request_id: 'r'"},
    {"GrantTtlRequest.request_revision", "ttl { seconds: 1 } request_id: 'r' request_revision: 1"},
    {"KeepAliveTtlRequest.ttl_id", "ttl_id: '00000000000000a1'"},
    {"RevokeTtlRequest.ttl_id", "ttl_id: '00000000000000a1'"},
    {"RevokeTtlRequest.request_id", "ttl_id: '00000000000000a1' request_id: 'r'"},
    {"RevokeTtlRequest.request_revision",
     "ttl_id: '00000000000000a1' request_id: 'r' request_revision: 1"},
    {"PutRequest.note", "key: 'a' text: 'v' note: 'n'"},
    {"DeleteRequest.key", "key: 'a'"},
    {"DeleteRequest.prefix", "prefix: 'a'"},
    {"DeleteRequest.expected_revision", "key: 'a' expected_revision: 7"},
    {"DeleteRequest.note", "key: 'a' note: 'n'"},
    {"PutRequest.request_id", "key: 'a' text: 'v' request_id: 'r'"},
    {"PutRequest.request_revision", "key: 'a' text: 'v' request_id: 'r' request_revision: 1"},
    {"DeleteRequest.request_id", "key: 'a' request_id: 'r'"},
    {"DeleteRequest.request_revision", "key: 'a' request_id: 'r' request_revision: 1"},
    {"WatchRequest.key", "key: 'a'"},
    {"WatchRequest.prefix", "prefix: ''"},
    {"WatchRequest.start_revision", "key: 'a' start_revision: 1"},
    {"WatchRequest.with_initial_state", "key: 'a' with_initial_state: true"},
    {"WatchRequest.with_previous", "key: 'a' with_previous: true"},
    {"WatchRequest.progress_interval.seconds", "key: 'a' progress_interval { seconds: 10 }"},
    {"WatchRequest.progress_interval.nanos", "key: 'a' progress_interval { nanos: 100000000 }"},
    {"GetRequest.read.at_revision", "key: 'a' read { at_revision: 2 }"},
    {"ListRequest.read.at_revision", "read { at_revision: 2 }"},
    {"HistoryRequest.key", "key: 'a'"},
    {"HistoryRequest.page_size", "key: 'a' page_size: 1"},
    {"HistoryRequest.read.max_staleness.seconds", "key: 'a' read { max_staleness { seconds: 1 } }"},
    {"HistoryRequest.read.max_staleness.nanos",
     "key: 'a' read { max_staleness { nanos: 999999999 } }"},
    {"HistoryRequest.read.at_revision", "key: 'a' read { at_revision: 2 }"},
    {"RollbackRequest.key", "key: 'a' to_revision: 1"},
    {"RollbackRequest.prefix", "prefix: 'a' to_revision: 1"},
    {"RollbackRequest.to_revision", "key: 'a' to_revision: 1"},
    {"RollbackRequest.note", "key: 'a' to_revision: 1 note: 'n'"},
    {"RollbackRequest.request_id", "key: 'a' to_revision: 1 request_id: 'r'"},
    {"RollbackRequest.request_revision",
     "key: 'a' to_revision: 1 request_id: 'r' request_revision: 1"},
    {"TxnRequest.request_id", "request_id: 'r'"},
    {"TxnRequest.request_revision", "request_id: 'r' request_revision: 1"},
    {"TxnRequest.note", "note: 'n'"},
    {"TxnRequest.conditions.key", "conditions { key: 'a' comparison: 1 version: 1 }"},
    {"TxnRequest.conditions.comparison", "conditions { key: 'a' comparison: 4 version: 1 }"},
    {"TxnRequest.conditions.mod_revision", "conditions { key: 'a' comparison: 1 mod_revision: 1 }"},
    {"TxnRequest.conditions.create_revision",
     "conditions { key: 'a' comparison: 1 create_revision: 1 }"},
    {"TxnRequest.conditions.version", "conditions { key: 'a' comparison: 1 version: 1 }"},
    {"TxnRequest.conditions.text", "conditions { key: 'a' comparison: 1 text: 'v' }"},
    {"TxnRequest.conditions.data", "conditions { key: 'a' comparison: 1 data: 'v' }"},
};
// Handled, and no value of it is valid by itself: it is refused by its own name, not as unbuilt.
// With the name that the refusal has for it.
const std::map<std::string, std::string> kHandledByRefusal = {
    {"ListRequest.page_token", "page_token"}, {"HistoryRequest.page_token", "page_token"}};

// The operations of a transaction, the same in both branches: what is valid, and what has no place
// in one and is refused by the name that comes second.
const std::map<std::string, std::string> kHandledWithin = {
    {"get.key", "get { key: 'a' }"},
    {"list.prefix", "list { prefix: 'a' }"},
    {"list.keys_only", "list { keys_only: true }"},
    {"list.count_only", "list { count_only: true }"},
    {"put.key", "put { key: 'a' text: 'v' }"},
    {"put.text", "put { key: 'a' text: 'v' }"},
    {"put.data", "put { key: 'a' data: 'v' }"},
    {"put.ttl_id", "put { key: 'a' data: 'v' ttl_id: '00000000000000a1' }"},
    {"delete.key", "delete { key: 'a' }"},
    {"delete.prefix", "delete { prefix: 'a' }"},
};
const std::map<std::string, std::string> kRefusedWithin = {
    {"get.read.consistency", "get.read"},
    {"get.read.min_revision", "get.read"},
    {"get.read.max_staleness.seconds", "get.read"},
    {"get.read.max_staleness.nanos", "get.read"},
    {"get.read.at_revision", "get.read"},
    {"list.page_size", "list.page_size"},
    {"list.page_token", "list.page_token"},
    {"list.read.consistency", "list.read"},
    {"list.read.min_revision", "list.read"},
    {"list.read.max_staleness.seconds", "list.read"},
    {"list.read.max_staleness.nanos", "list.read"},
    {"list.read.at_revision", "list.read"},
    {"put.expected_revision", "put.expected_revision"},
    {"put.request_id", "put.request_id"},
    {"put.request_revision", "put.request_revision"},
    {"put.note", "put.note"},
    {"delete.expected_revision", "delete.expected_revision"},
    {"delete.request_id", "delete.request_id"},
    {"delete.request_revision", "delete.request_revision"},
    {"delete.note", "delete.note"},
};

// Not handled: what the refusal names. The request is valid but for this field.
const std::map<std::string, std::string> kRefused = {};
// What makes a request valid that has nothing else.
const std::map<std::string, std::string> kValid = {
    {"GetRequest", "key: 'a'"},
    {"ListRequest", ""},
    {"PutRequest", "key: 'a' text: 'v'"},
    {"DeleteRequest", "key: 'a'"},
    {"TxnRequest", ""},
    {"HistoryRequest", "key: 'a'"},
    {"RollbackRequest", "key: 'a' to_revision: 1"},
    {"WatchRequest", "key: 'a'"},
    {"GrantTtlRequest", "ttl { seconds: 1 }"},
    {"KeepAliveTtlRequest", "ttl_id: '00000000000000a1'"},
    {"RevokeTtlRequest", "ttl_id: '00000000000000a1'"},
};
// The same for a part of one.
const std::map<std::string, std::string> kValidPart = {
    {"TxnRequest.then.put", "then { put { key: 'a' text: 'v' } }"},
    {"TxnRequest.else.put", "else { put { key: 'a' text: 'v' } }"},
};
const std::set<std::string> kBuilt = {
    "Config/Get",     "Config/List",         "Config/Put",          "Config/Delete",
    "Config/Txn",     "Config/History",      "Config/Rollback",     "Config/Write",
    "Config/Watch",   "Config/GrantTtl",     "Config/RevokeTtl",    "Config/KeepAliveTtl",
    "Cluster/Status", "Cluster/ListMembers", "Cluster/GetSettings", "Cluster/Drain"};

void SetSomething(Message* message, const FieldDescriptor* field) {
  const Reflection* reflection = message->GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      reflection->SetString(message, field, "x");
      break;
    case FieldDescriptor::CPPTYPE_UINT64:
      reflection->SetUInt64(message, field, 1);
      break;
    case FieldDescriptor::CPPTYPE_UINT32:
      reflection->SetUInt32(message, field, 1);
      break;
    case FieldDescriptor::CPPTYPE_INT64:
      reflection->SetInt64(message, field, 1);
      break;
    case FieldDescriptor::CPPTYPE_INT32:
      reflection->SetInt32(message, field, 1);
      break;
    case FieldDescriptor::CPPTYPE_BOOL:
      reflection->SetBool(message, field, true);
      break;
    case FieldDescriptor::CPPTYPE_ENUM:
      // The last one: the first is the default, and the second may be its synonym.
      reflection->SetEnumValue(
          message, field,
          field->enum_type()->value(field->enum_type()->value_count() - 1)->number());
      break;
    default:
      FAIL() << "no value for " << field->full_name();
  }
}

class FieldWalk : public ::testing::Test {
 protected:
  FieldWalk() {
    node_.status.fresh_as_of = kWalkStart;
    node_.status.membership = std::make_shared<raft::Membership>();
    node_.state.Put("a", "v");
    node_.state.history["a"].emplace_back();
    config_.SetBackend(node_.Backend());
    watch_.SetBackend(node_.Backend());
  }
  ~FieldWalk() override {
    watch_.Stop();
    pool_.Stop();
  }

  // The first that a watch says, or its end.
  class FirstWord final : public WatchSink {
   public:
    void Send(std::string, std::shared_ptr<const std::string>) override {
      first_.set_value(grpc::Status::OK);
    }
    void End(grpc::Status status) override {
      if (!std::exchange(ended_, true)) first_.set_value(std::move(status));
    }
    grpc::Status Wait() { return first_.get_future().get(); }

   private:
    std::promise<grpc::Status> first_;
    bool ended_ = false;
  };
  grpc::Status Watch(const std::string& bytes) {
    const auto sink = std::make_shared<FirstWord>();
    const ingress::WatchId id = watch_.NewId();
    watch_.Open(id, bytes, sink);
    grpc::Status status = sink->Wait();
    watch_.OnGone(id);  // the first word was never taken: nothing more comes
    return status;
  }

  // The end of one call by the real handler; a write that was taken counts as OK.
  grpc::Status Call(const ServiceDescriptor* service, const std::string& method,
                    const std::string& bytes) {
    const auto call = std::make_shared<CallContext>(kWalkStart + std::chrono::seconds(10),
                                                    std::map<std::string, std::string>());
    std::promise<grpc::Status> end;
    std::future<grpc::Status> ended = end.get_future();
    const CallDone done = [&end](const grpc::Status& status, const std::string&) {
      end.set_value(status);
    };
    if (service->name() == "Cluster") {
      cluster_.Handle(method, bytes, call, done);
      return ended.get();
    }
    if (method == "Watch") return Watch(bytes);
    const size_t writes = node_.writes.size();
    config_.Handle(method, bytes, call, done);
    if (node_.writes.size() > writes) {
      call->Cancel();
      EXPECT_EQ(ended.get().error_code(), grpc::StatusCode::CANCELLED);
      return grpc::Status::OK;
    }
    return ended.get();
  }

  // Every scalar field below `message`, each set in a request of its own.
  void Walk(const MethodDescriptor* method, const std::string& path,
            const std::vector<const FieldDescriptor*>& above, const Descriptor* type) {
    for (int i = 0; i < type->field_count(); ++i) {
      const FieldDescriptor* field = type->field(i);
      std::vector<const FieldDescriptor*> fields = above;
      fields.push_back(field);
      const std::string name = path + "." + field->name();
      ASSERT_LT(fields.size(), 9u) << name;
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        Walk(method, name, fields, field->message_type());
      } else {
        CheckField(method, name, fields);
      }
    }
  }

  void CheckField(const MethodDescriptor* method, const std::string& name,
                  const std::vector<const FieldDescriptor*>& fields) {
    ++walked_;
    std::unique_ptr<Message> request(Prototype(method)->New());
    // Of the longest part that is known: they come in their order.
    std::string valid;
    for (const auto& [part, text] : AllValid()) {
      if (name.starts_with(part + ".")) valid = text;
    }
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(valid, request.get()));
    Message* at = request.get();
    for (size_t i = 0; i + 1 < fields.size(); ++i) {
      const Reflection* reflection = at->GetReflection();
      at = !fields[i]->is_repeated() ? reflection->MutableMessage(at, fields[i])
           : reflection->FieldSize(*at, fields[i]) > 0
               ? reflection->MutableRepeatedMessage(at, fields[i], 0)
               : reflection->AddMessage(at, fields[i]);
    }
    SetSomething(at, fields.back());
    const grpc::Status status =
        Call(method->service(), method->name(), request->SerializeAsString());
    const ErrorDetails details = DetailsOf(status);
    if (const auto refused = AllRefused().find(name); refused != AllRefused().end()) {
      EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << name;
      EXPECT_EQ(details.reason, "NOT_IN_THIS_BUILD") << name;
      EXPECT_NE(status.error_message().find(refused->second), std::string::npos)
          << name << ": " << status.error_message();
      return;
    }
    if (const auto own = AllHandledByRefusal().find(name); own != AllHandledByRefusal().end()) {
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << name;
      EXPECT_EQ(details.metadata.at("field"), own->second) << name;
      return;
    }
    const auto handled = AllHandled().find(name);
    ASSERT_NE(handled, AllHandled().end())
        << name << " is neither handled nor refused: " << status.error_message();
    std::unique_ptr<Message> good(Prototype(method)->New());
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(handled->second, good.get())) << name;
    const grpc::Status taken = Call(method->service(), method->name(), good->SerializeAsString());
    EXPECT_TRUE(taken.ok()) << name << ": " << taken.error_message();
  }

  static std::map<std::string, std::string> WithBranches(std::map<std::string, std::string> all,
                                                         bool handled) {
    for (const std::string branch : {"then", "else"}) {
      for (const auto& [name, text] : handled ? kHandledWithin : kRefusedWithin) {
        all["TxnRequest." + branch + "." + name] =
            handled ? branch + " { " + text + " }" : branch + "[0]." + text;
      }
    }
    return all;
  }
  // A streamed write has the fields of the four calls.
  static std::map<std::string, std::string> WithStreamed(std::map<std::string, std::string> all,
                                                         bool texts) {
    const std::map<std::string, std::string> parts = {{"PutRequest", "put"},
                                                      {"DeleteRequest", "delete"},
                                                      {"TxnRequest", "txn"},
                                                      {"RollbackRequest", "rollback"}};
    std::map<std::string, std::string> streamed;
    for (const auto& [name, what] : all) {
      const auto part = parts.find(name.substr(0, name.find('.')));
      if (part == parts.end()) continue;
      const std::string rest = name.substr(part->first.size());
      streamed["WriteRequest." + part->second + rest] =
          texts ? part->second + " { " + what + " }" : what;
    }
    all.merge(streamed);
    return all;
  }
  static const std::map<std::string, std::string>& AllHandled() {
    static const auto& all = *new auto(WithStreamed(WithBranches(kHandled, true), true));
    return all;
  }
  static const std::map<std::string, std::string>& AllHandledByRefusal() {
    static const auto& all = *new auto(WithStreamed(WithBranches(kHandledByRefusal, false), false));
    return all;
  }
  static const std::map<std::string, std::string>& AllRefused() {
    static const auto& all = *new auto(WithStreamed(kRefused, false));
    return all;
  }
  static const std::map<std::string, std::string>& AllValid() {
    static const auto& all = *new auto([] {
      std::map<std::string, std::string> all = kValidPart;
      for (const auto& [message, text] : kValid) all[message] = text;
      return WithStreamed(all, true);
    }());
    return all;
  }

  static const Message* Prototype(const MethodDescriptor* method) {
    return google::protobuf::MessageFactory::generated_factory()->GetPrototype(
        method->input_type());
  }

  FakeNode node_;
  ReadPool pool_{1, 10};
  ConfigService config_{"n1", &pool_, [] { return kWalkStart; }};
  WatchService watch_{"n1", &pool_, [] { return kWalkStart; }};
  ClusterService cluster_{
      [] { return ClusterView(); }, nullptr,
      [](bool, Instant, const std::function<void(bool)>& done) { done(false); }};
  size_t walked_ = 0;
};

TEST_F(FieldWalk, EveryFieldOfEveryRequestIsHandledOrRefused) {
  std::set<std::string> built;
  for (const ServiceDescriptor* service : {v1::GetRequest::descriptor()->file()->service(0),
                                           v1::StatusRequest::descriptor()->file()->service(0)}) {
    for (int i = 0; i < service->method_count(); ++i) {
      const MethodDescriptor* method = service->method(i);
      const std::string name = service->name() + "/" + method->name();
      if (kBuilt.contains(name)) {
        built.insert(name);
        Walk(method, method->input_type()->name(), {}, method->input_type());
        continue;
      }
      // A call that is not built refuses itself by name, whatever it carries.
      const grpc::Status status = Call(service, method->name(), "");
      EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << name;
      EXPECT_EQ(DetailsOf(status).reason, "NOT_IN_THIS_BUILD") << name;
      EXPECT_NE(status.error_message().find("quorate.v1." + name), std::string::npos)
          << status.error_message();
    }
  }
  EXPECT_EQ(built, kBuilt);
  // The tables hold nothing that is gone.
  EXPECT_EQ(walked_, AllHandled().size() + AllHandledByRefusal().size() + AllRefused().size());
}

// A field that this build does not know is refused wherever it is, in every request.
TEST_F(FieldWalk, AnUnknownFieldIsRefusedInEveryBuiltCall) {
  const std::string unknown = "\xF8\x7F\x01";  // field 2047, varint 1
  for (const auto& [method, valid] :
       std::map<std::string, std::string>{{"Get", "\x0A\x01k"},
                                          {"List", ""},
                                          {"Put", "\x0A\x01k\x12\x01v"},
                                          {"Delete", "\x0A\x01k"},
                                          {"Txn", ""},
                                          {"History", "\x0A\x01k"},
                                          {"Rollback", "\x0A\x01k\x18\x01"},
                                          {"Write", ""},
                                          {"GrantTtl", "\x0A\x02\x08\x01"},
                                          {"RevokeTtl", ""},
                                          {"KeepAliveTtl", ""},
                                          {"Watch", "\x0A\x01k"}}) {
    const grpc::Status status =
        Call(v1::GetRequest::descriptor()->file()->service(0), method, valid + unknown);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << method;
    EXPECT_EQ(DetailsOf(status).metadata.at("number"), "2047") << method;
  }
  for (const char* method : {"Status", "ListMembers"}) {
    const grpc::Status status =
        Call(v1::StatusRequest::descriptor()->file()->service(0), method, unknown);
    EXPECT_EQ(DetailsOf(status).metadata.at("number"), "2047") << method;
  }
}

}  // namespace
}  // namespace quorate::services
