#include "services/yaml_reader.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cctype>
#include <set>

namespace quorate::services {
namespace {

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

// Levenshtein's distance, case ignored.
size_t Distance(std::string_view first, std::string_view second) {
  const std::string a = Lower(first), b = Lower(second);
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

// A typing mistake of `name`: at most a third of the letters differ, and at most two.
bool IsNear(std::string_view written, std::string_view name) {
  return Distance(written, name) <= std::min<size_t>(2, name.size() / 3);
}

std::string_view LeafOf(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

bool IsVariableName(std::string_view name) {
  if (name.empty() || std::isdigit(static_cast<unsigned char>(name[0]))) return false;
  return std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return c < 0x80 && (std::isalnum(c) || c == '_'); });
}

// Of `${POD_IP}:7000` with an IPv6 address: that it needs brackets is no business of whoever writes
// the file for pods of either kind. `after`: what follows the variable, to the end.
bool NeedsBrackets(const std::string& value, std::string_view before, std::string_view after) {
  in6_addr ignored;
  const std::string_view port_text = after.substr(after.empty() ? 0 : 1);
  const bool number =
      !port_text.empty() && port_text.find_first_not_of("0123456789") == std::string_view::npos;
  const bool variable = port_text.starts_with("${") && port_text.ends_with('}') &&
                        IsVariableName(port_text.substr(2, port_text.size() - 3));
  const bool port = after.starts_with(':') && (number || variable);
  return port && !before.ends_with('[') && inet_pton(AF_INET6, value.c_str(), &ignored) == 1;
}

std::string_view KindOf(const YAML::Node& node) {
  switch (node.Type()) {
    case YAML::NodeType::Map:
      return "a mapping";
    case YAML::NodeType::Sequence:
      return "a list";
    case YAML::NodeType::Scalar:
      return "a single value";
    default:
      return "empty";
  }
}

}  // namespace

YamlReader::YamlReader(std::string_view file, const Environment& environment,
                       std::span<const std::string_view> paths)
    : file_(file), environment_(environment), paths_(paths) {}

std::optional<YAML::Node> YamlReader::Parse(std::string_view text) {
  try {
    std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.empty() || (documents.size() == 1 && documents[0].IsNull())) {
      problems_.push_back({0, 0, "the file is empty; write mode and controlPlane"});
      return std::nullopt;
    }
    if (documents.size() > 1) {
      Problem(documents[1], "", "a second YAML document; write one document");
      return std::nullopt;
    }
    return documents[0];
  } catch (const YAML::ParserException& error) {
    problems_.push_back({error.mark.line + 1, error.mark.column + 1, "not YAML: " + error.msg});
  } catch (const YAML::Exception& error) {
    problems_.push_back({0, 0, "not YAML: " + error.msg});
  }
  return std::nullopt;
}

std::optional<YamlReader::Section> YamlReader::ReadSection(const YAML::Node& node,
                                                           const std::string& path,
                                                           std::span<const Key> keys) {
  if (!node.IsMap()) {
    Problem(node, path,
            "is " + std::string(KindOf(node)) + "; write its keys below it, indented further");
    return std::nullopt;
  }
  Section section;
  std::map<std::string, int> first_line;
  for (const auto& pair : node) {
    const YAML::Node &key = pair.first, &value = pair.second;
    if (!key.IsScalar()) {
      Problem(key, path, "a key that is " + std::string(KindOf(key)) + "; write a plain name");
      continue;
    }
    const std::string& name = key.Scalar();
    const std::string full = path.empty() ? name : path + "." + name;
    const auto [first, is_new] = first_line.emplace(name, key.Mark().line + 1);
    if (!is_new) {
      Problem(key, full,
              "repeated: it is already at line " + std::to_string(first->second) + "; keep one");
      continue;
    }
    const auto known = std::find_if(keys.begin(), keys.end(),
                                    [&](const Key& candidate) { return candidate.name == name; });
    if (known == keys.end()) {
      Unknown(key, path, name, keys);
    } else if (!known->not_yet.empty()) {
      Problem(key, full, "not in this build yet (" + std::string(known->not_yet) + "); remove it");
    } else {
      section.emplace(name, value);
      if (value.IsNull()) empty_.emplace_back(value, key.Mark());
    }
  }
  return section;
}

void YamlReader::Unknown(const YAML::Node& at, const std::string& section, const std::string& name,
                         std::span<const Key> keys) {
  const std::string full = section.empty() ? name : section + "." + name;
  for (const Key& key : keys) {
    if (IsNear(name, key.name)) {
      Problem(at, full, "unknown key; did you mean " + std::string(key.name) + "?");
      return;
    }
  }
  // A right name at the wrong depth is what lost indentation looks like.
  for (const std::string_view path : paths_) {
    if (LeafOf(path) == name) {
      Problem(at, full, "unknown key here; it belongs at " + std::string(path));
      return;
    }
  }
  std::string known;
  for (const Key& key : keys) {
    if (key.not_yet.empty()) known += (known.empty() ? "" : ", ") + std::string(key.name);
  }
  Problem(at, full, "unknown key; known here: " + known);
}

std::optional<std::string> YamlReader::ReadScalar(const YAML::Node& node, const std::string& path,
                                                  std::string_view write) {
  const std::string instead = "; write " + std::string(write);
  if (!node.IsScalar()) {
    Problem(node, path, "is " + std::string(KindOf(node)) + instead);
    return std::nullopt;
  }
  const std::string& raw = node.Scalar();
  std::string text;
  std::string variables;
  for (size_t i = 0; i < raw.size(); ++i) {
    if (raw.compare(i, 3, "$${") == 0) {
      text += "${";
      i += 2;
      continue;
    }
    if (raw.compare(i, 2, "${") != 0) {
      text += raw[i];
      continue;
    }
    const size_t end = raw.find('}', i);
    const std::string name =
        end == std::string::npos ? std::string() : raw.substr(i + 2, end - i - 2);
    if (!IsVariableName(name)) {
      Problem(node, path,
              "`" + raw +
                  "` has a ${ that names no variable; write ${NAME}, or $${ for "
                  "the characters themselves");
      return std::nullopt;
    }
    const std::optional<std::string> value = environment_(name);
    if (!value) {
      Problem(node, path,
              "the environment variable " + name + " is not set; set it" +
                  ", or write the value itself");
      return std::nullopt;
    }
    variables += (variables.empty() ? "" : ", ") + name;
    const bool brackets = NeedsBrackets(*value, text, std::string_view(raw).substr(end + 1));
    text += brackets ? "[" + *value + "]" : *value;
    i = end;
  }
  if (text.empty()) {
    Problem(node, path,
            (variables.empty()
                 ? "is empty"
                 : "is empty: the environment variable " + variables + " is set to nothing") +
                instead);
    return std::nullopt;
  }
  if (text.find('\0') != std::string::npos) {
    Problem(node, path, "has a NUL character" + instead);
    return std::nullopt;
  }
  return text;
}

std::optional<std::string> YamlReader::ReadOptional(const Section& section, std::string_view name,
                                                    const std::string& path,
                                                    std::string_view write) {
  const auto found = section.find(name);
  if (found == section.end()) return std::nullopt;
  return ReadScalar(found->second, path + "." + std::string(name), write);
}

std::optional<std::string> YamlReader::ReadRequired(const Section& section, std::string_view name,
                                                    const YAML::Node& parent,
                                                    const std::string& path,
                                                    std::string_view write) {
  if (!section.contains(name)) {
    Problem(parent, path + "." + std::string(name), "missing; write " + std::string(write));
    return std::nullopt;
  }
  return ReadOptional(section, name, path, write);
}

YamlReader::Note YamlReader::MakeNote(const YAML::Node& at, const std::string& path,
                                      const std::string& text) const {
  YAML::Mark mark = at.Mark();
  for (const auto& [node, of_key] : empty_) {
    if (at.is(node)) mark = of_key;
  }
  const bool nowhere = mark.is_null();
  return {nowhere ? 0 : mark.line + 1, nowhere ? 0 : mark.column + 1,
          path.empty() ? text : path + ": " + text};
}

void YamlReader::Problem(const YAML::Node& at, const std::string& path, const std::string& text) {
  problems_.push_back(MakeNote(at, path, text));
}

void YamlReader::Warning(const YAML::Node& at, const std::string& path, const std::string& text) {
  warnings_.push_back(MakeNote(at, path, text));
}

std::string YamlReader::Format(const Note& note) const {
  std::string line(file_);
  if (note.line > 0) {
    line += ":" + std::to_string(note.line) + ":" + std::to_string(note.column);
  }
  return line + ": " + note.text;
}

absl::Status YamlReader::status() const {
  if (problems_.empty()) return absl::OkStatus();
  std::vector<Note> sorted = problems_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Note& a, const Note& b) {
    return std::pair(a.line, a.column) < std::pair(b.line, b.column);
  });
  std::string text;
  for (size_t i = 0; i < sorted.size() && i < kProblemsMax; ++i) {
    text += (i == 0 ? "" : "\n") + Format(sorted[i]);
  }
  if (sorted.size() > kProblemsMax) {
    text += "\n" + std::string(file_) + ": and " + std::to_string(sorted.size() - kProblemsMax) +
            " more";
  }
  return absl::InvalidArgumentError(text);
}

std::vector<std::string> YamlReader::warnings() const {
  std::vector<std::string> lines;
  for (const Note& note : warnings_) lines.push_back(Format(note));
  return lines;
}

}  // namespace quorate::services
