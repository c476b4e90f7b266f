// Completion scripts for shells, made from the command's own tree of subcommands and flags, so that
// they offer what there is and nothing else.
//
// Pure; any thread.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"

namespace quorate::tools {

enum class Shell { kBash, kZsh, kFish };
std::optional<Shell> ParseShell(const std::string& name);

// What a flag takes where only a few words are allowed: by the flag, `--output`.
using CompletionChoices = std::map<std::string, std::vector<std::string>>;

// The script, for `source` or the shell's directory of completions. The flags of `app` are offered
// behind every subcommand.
std::string CompletionScript(Shell shell, const CLI::App& app, const CompletionChoices& choices);

}  // namespace quorate::tools
