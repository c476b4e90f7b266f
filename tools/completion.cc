#include "tools/completion.h"

#include <algorithm>

namespace quorate::tools {
namespace {

struct Word {
  std::string text;
  std::string description;
};

// What one subcommand offers: `path` is "" or " member add".
struct Place {
  std::string path;
  std::vector<Word> subcommands;
  std::vector<Word> flags;
};

struct CommandTree {
  std::vector<Place> places;
  std::vector<std::string> takes_value;  // flags behind which a value follows
};

bool IsFlag(const CLI::Option* option) { return !option->get_positional(); }

std::vector<Word> FlagsOf(const CLI::App& app, CommandTree* tree) {
  std::vector<Word> flags;
  for (const CLI::Option* option : app.get_options(IsFlag)) {
    for (const auto& [names, dashes] :
         {std::pair(option->get_lnames(), "--"), std::pair(option->get_snames(), "-")}) {
      for (const std::string& name : names) {
        flags.push_back({dashes + name, option->get_description()});
        if (option->get_expected_min() == 0) continue;  // it is there or not
        std::vector<std::string>& with = tree->takes_value;
        if (std::find(with.begin(), with.end(), dashes + name) == with.end()) {
          with.push_back(dashes + name);
        }
      }
    }
  }
  return flags;
}

void Collect(const CLI::App& app, const std::string& path, const std::vector<Word>& globals,
             CommandTree* tree) {
  Place place;
  place.path = path;
  place.flags = FlagsOf(app, tree);
  for (const Word& word : globals) {
    const bool there = std::any_of(place.flags.begin(), place.flags.end(),
                                   [&](const Word& own) { return own.text == word.text; });
    if (!there) place.flags.push_back(word);
  }
  const auto all = app.get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* child : all) {
    place.subcommands.push_back({child->get_name(), child->get_description()});
  }
  const std::vector<Word> inherited = path.empty() ? place.flags : globals;
  tree->places.push_back(std::move(place));
  for (const CLI::App* child : all) {
    Collect(*child, path + " " + child->get_name(), inherited, tree);
  }
}

// In single quotes, for sh and its like.
std::string Quoted(const std::string& text) {
  std::string out = "'";
  for (char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// The same for fish, where a backslash counts within them.
std::string QuotedForFish(const std::string& text) {
  std::string out = "'";
  for (char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

std::string Join(const std::vector<std::string>& words, const std::string& between) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : between) + word;
  return out;
}

std::string Texts(const std::vector<Word>& words) {
  std::string out;
  for (const Word& word : words) out += (out.empty() ? "" : " ") + word.text;
  return out;
}

// bash and zsh: which subcommand the words before the cursor have come to. `$path` in the end.
std::string FindPlace(const CommandTree& tree, const char* words, const char* first,
                      const char* end) {
  std::string paths;
  for (const Place& place : tree.places) {
    if (place.path.empty()) continue;
    paths += (paths.empty() ? "" : "|") + ('"' + place.path + '"');
  }
  return std::string("  local place=\"\" word skip=\"\" i\n  for ((i = ") + first + "; i < " + end +
         "; i++)); do\n    word=\"${" + words +
         "[i]}\"\n"
         "    if [[ -n \"$skip\" ]]; then skip=\"\"; continue; fi\n"
         "    case \"$word\" in\n      " +
         Join(tree.takes_value, "|") +
         ") skip=1; continue ;;\n      -*) continue ;;\n    esac\n"
         "    case \"$place $word\" in\n      " +
         paths +
         ") place=\"$place $word\" ;;\n    esac\n"
         "  done\n";
}

std::string Bash(const CommandTree& tree, const CompletionChoices& choices,
                 const std::string& name) {
  std::string out = "# bash completion of " + name + ": source <(" + name + " completion bash)\n_" +
                    name +
                    "() {\n  local cur=\"${COMP_WORDS[COMP_CWORD]}\" "
                    "prev=\"${COMP_WORDS[COMP_CWORD-1]}\" words=\"\"\n";
  out += FindPlace(tree, "COMP_WORDS", "1", "COMP_CWORD");
  out += "  COMPREPLY=()\n  case \"$prev\" in\n";
  for (const auto& [flag, values] : choices) {
    out += "    " + flag + ") COMPREPLY=($(compgen -W " + Quoted(Join(values, " ")) +
           " -- \"$cur\")); return ;;\n";
  }
  // Any other value is the user's, perhaps a file.
  out += "    " + Join(tree.takes_value, "|") + ") return ;;\n  esac\n  case \"$place\" in\n";
  for (const Place& place : tree.places) {
    out += "    " + Quoted(place.path) +
           ") if [[ \"$cur\" == -* ]]; then words=" + Quoted(Texts(place.flags)) +
           "; else words=" + Quoted(Texts(place.subcommands)) + "; fi ;;\n";
  }
  return out +
         "  esac\n  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\ncomplete -o default -F _" +
         name + " " + name + "\n";
}

std::string Described(const std::vector<Word>& words) {
  std::string out;
  for (const Word& word : words) {
    std::string text;
    for (char c : word.text) text += c == ':' ? std::string("\\:") : std::string(1, c);
    out += " " + Quoted(text + ":" + word.description);
  }
  return out;
}

std::string Zsh(const CommandTree& tree, const CompletionChoices& choices,
                const std::string& name) {
  std::string out = "#compdef " + name + "\n# zsh completion of " + name + ": source <(" + name +
                    " completion zsh)\n_" + name +
                    "() {\n  local cur=\"${words[CURRENT]}\" prev=\"${words[CURRENT-1]}\"\n"
                    "  local -a offered\n";
  out += FindPlace(tree, "words", "2", "CURRENT");
  out += "  case \"$prev\" in\n";
  for (const auto& [flag, values] : choices) {
    out += "    " + flag + ") compadd -- " + Join(values, " ") + "; return ;;\n";
  }
  out +=
      "    " + Join(tree.takes_value, "|") + ") _files; return ;;\n  esac\n  case \"$place\" in\n";
  for (const Place& place : tree.places) {
    out += "    " + Quoted(place.path) + ") if [[ \"$cur\" == -* ]]; then offered=(" +
           Described(place.flags) + "); else offered=(" + Described(place.subcommands) +
           "); fi ;;\n";
  }
  return out + "  esac\n  if (( ${#offered} )); then _describe '" + name +
         "' offered; else _files; fi\n}\nif [[ \"$funcstack[1]\" = \"_" + name + "\" ]]; then _" +
         name + "; else compdef _" + name + " " + name + "; fi\n";
}

std::string Fish(const CommandTree& tree, const CompletionChoices& choices,
                 const std::string& name) {
  std::string out = "# fish completion of " + name + ": " + name +
                    " completion fish | source\n"
                    "function __" +
                    name +
                    "_place\n  set -l place ''\n  set -l skip ''\n"
                    "  for word in (commandline -opc)[2..-1]\n"
                    "    if test -n \"$skip\"\n      set skip ''\n      continue\n    end\n"
                    "    switch $word\n      case " +
                    Join(tree.takes_value, " ") +
                    "\n        set skip 1\n        continue\n      case '-*'\n        continue\n"
                    "    end\n    switch \"$place $word\"\n      case";
  for (const Place& place : tree.places) {
    if (!place.path.empty()) out += " " + QuotedForFish(place.path);
  }
  out += "\n        set place \"$place $word\"\n    end\n  end\n  echo \"$place\"\nend\n";
  for (const Place& place : tree.places) {
    const std::string when =
        "complete -c " + name + " -n 'test \"$(__" + name + "_place)\" = \"" + place.path + "\"' ";
    for (const Word& word : place.subcommands) {
      out += when + "-f -a " + word.text + " -d " + QuotedForFish(word.description) + "\n";
    }
    for (const Word& word : place.flags) {
      const bool is_long = word.text.starts_with("--");
      const bool value = std::find(tree.takes_value.begin(), tree.takes_value.end(), word.text) !=
                         tree.takes_value.end();
      const auto chosen = choices.find(word.text);
      out += when + (is_long ? "-l " + word.text.substr(2) : "-s " + word.text.substr(1)) +
             (value ? " -r" : "") +
             (chosen != choices.end() ? " -f -a " + QuotedForFish(Join(chosen->second, " "))
                                      : std::string()) +
             " -d " + QuotedForFish(word.description) + "\n";
    }
  }
  return out;
}

}  // namespace

std::optional<Shell> ParseShell(const std::string& name) {
  if (name == "bash") return Shell::kBash;
  if (name == "zsh") return Shell::kZsh;
  if (name == "fish") return Shell::kFish;
  return std::nullopt;
}

std::string CompletionScript(Shell shell, const CLI::App& app, const CompletionChoices& choices) {
  CommandTree tree;
  Collect(app, "", {}, &tree);
  switch (shell) {
    case Shell::kBash:
      return Bash(tree, choices, app.get_name());
    case Shell::kZsh:
      return Zsh(tree, choices, app.get_name());
    case Shell::kFish:
      return Fish(tree, choices, app.get_name());
  }
  return "";
}

}  // namespace quorate::tools
