// Reads YAML strictly and remembers every mistake with its place: what configuration.cc is made of.
//
// A reader lives as long as one file is read; one thread.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "services/configuration.h"
#include "yaml-cpp/yaml.h"

namespace quorate::services {

class YamlReader {
 public:
  static constexpr size_t kProblemsMax = 20;

  // A key that a section knows. `not_yet`, when not empty, says what this build would not do about
  // it: the key is then refused.
  struct Key {
    std::string_view name;
    std::string_view not_yet = {};
  };
  using Section = std::map<std::string, YAML::Node, std::less<>>;

  // `paths`: the full path of every key of the file, for "belongs at" hints. All arguments must
  // outlive the reader.
  YamlReader(std::string_view file, const Environment& environment,
             std::span<const std::string_view> paths);

  // The file's one document; nullopt (and a problem) when it is not one YAML document.
  std::optional<YAML::Node> Parse(std::string_view text);

  // The values of a mapping by key. Unknown, repeated and not yet built keys are problems and not
  // in the result; nullopt (and a problem) when `node` is no mapping.
  std::optional<Section> ReadSection(const YAML::Node& node, const std::string& path,
                                     std::span<const Key> keys);

  // A scalar's text with ${NAME} expanded (an IPv6 address in front of `:PORT` gets its brackets);
  // nullopt (and a problem) when it is something else, is
  // empty, or names an unset variable. `write` is an example of what to write instead.
  std::optional<std::string> ReadScalar(const YAML::Node& node, const std::string& path,
                                        std::string_view write);

  // The same for `section[name]`; nullopt without a problem when the key is absent.
  std::optional<std::string> ReadOptional(const Section& section, std::string_view name,
                                          const std::string& path, std::string_view write);
  // The same, and an absent key is a problem at `parent`.
  std::optional<std::string> ReadRequired(const Section& section, std::string_view name,
                                          const YAML::Node& parent, const std::string& path,
                                          std::string_view write);

  void Problem(const YAML::Node& at, const std::string& path, const std::string& text);
  void Warning(const YAML::Node& at, const std::string& path, const std::string& text);

  // kInvalidArgument with all problems, in the file's order; OK when there is none.
  absl::Status status() const;
  std::vector<std::string> warnings() const;

 private:
  struct Note {
    int line, column;  // 0: the file as a whole
    std::string text;
  };
  void Unknown(const YAML::Node& at, const std::string& section, const std::string& name,
               std::span<const Key> keys);
  Note MakeNote(const YAML::Node& at, const std::string& path, const std::string& text) const;
  std::string Format(const Note& note) const;

  const std::string_view file_;
  const Environment& environment_;
  const std::span<const std::string_view> paths_;
  // Values that are not there (`raft:` and nothing below it), with the place of their key: YAML
  // gives them the place of whatever comes next.
  std::vector<std::pair<YAML::Node, YAML::Mark>> empty_;
  std::vector<Note> problems_;
  std::vector<Note> warnings_;
};

}  // namespace quorate::services
