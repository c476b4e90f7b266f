// What a node takes as a command: nothing that it would leave a part of out.
#include "storage/command_check.h"

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "quorate/v1/command.pb.h"
#include "storage/state_schema.h"

namespace quorate::storage {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Sets every message below this one; of its oneof the member with this number, of those below it
// the one with the other number.
void Fill(Message* message, int member, int below) {
  const google::protobuf::Reflection& reflection = *message->GetReflection();
  const google::protobuf::Descriptor& type = *message->GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor* field = type.field(i);
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    const auto* oneof = field->real_containing_oneof();
    if (oneof != nullptr && oneof->field(member % oneof->field_count()) != field) continue;
    Fill(field->is_repeated() ? reflection.AddMessage(message, field)
                              : reflection.MutableMessage(message, field),
         below, below);
  }
}

// Calls `each` with every message of the tree.
void Visit(Message* message, const std::function<void(Message*)>& each) {
  each(message);
  const google::protobuf::Reflection& reflection = *message->GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(*message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      Visit(reflection.MutableMessage(message, field), each);
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(*message, field); ++i) {
      Visit(reflection.MutableRepeatedMessage(message, field, i), each);
    }
  }
}

TEST(CommandCheck, AFieldThatIsNotKnownIsFoundAtEveryDepth) {
  std::set<std::string> types;
  const int bodies = v1::Command::descriptor()->FindOneofByName("body")->field_count();
  for (int i = 0; i < 3 * bodies; ++i) {  // three kinds of operation
    v1::Command command;
    Fill(&command, i / 3, i % 3);
    command.set_format(kCommandFormat);
    ASSERT_TRUE(CheckCommand(command.SerializeAsString()).ok()) << command.ShortDebugString();
    Visit(&command, [&](Message* message) {
      const std::string name(message->GetDescriptor()->name());
      types.insert(name);
      google::protobuf::UnknownFieldSet* unknown =
          message->GetReflection()->MutableUnknownFields(message);
      unknown->AddVarint(99, 1);
      const absl::Status status = CheckCommand(command.SerializeAsString());
      EXPECT_TRUE(absl::IsFailedPrecondition(status)) << name << ": " << status;
      EXPECT_NE(std::string(status.message()).find("has fields"), std::string::npos) << status;
      unknown->Clear();
    });
  }
  for (const char* deep : {"Compare", "Operation", "PutOperation", "DeleteOperation",
                           "ReadOperation", "SessionPosition", "ClientRequest"}) {
    EXPECT_TRUE(types.contains(deep)) << "not looked at: " << deep;
  }
}

TEST(CommandCheck, EachOfSeveralOperationsIsLookedAt) {
  v1::Command command;
  command.set_format(1);
  for (int i = 0; i < 3; ++i) {
    command.mutable_transaction()->add_then()->mutable_put()->set_key("k");
  }
  v1::PutOperation* last = command.mutable_transaction()->mutable_then(2)->mutable_put();
  last->GetReflection()->MutableUnknownFields(last)->AddLengthDelimited(7, "newer");
  EXPECT_FALSE(CheckCommand(command.SerializeAsString()).ok());
}

}  // namespace
}  // namespace quorate::storage
