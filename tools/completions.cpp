// Completion scripts of shells, from the options.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "tools/manual.h"

namespace moelora {
namespace {

std::string function_name(const std::string& tool) {
  std::string out = "_" + tool;
  std::replace(out.begin(), out.end(), '-', '_');
  return out;
}

// A word in single quotes, of which a text may hold any.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::vector<std::string> flags_of(const ManualCommand& command) {
  std::vector<std::string> out;
  for (const ManualOption& option : command.options)
    if (!option.positional) out.insert(out.end(), option.names.begin(), option.names.end());
  return out;
}

std::vector<std::string> names_of(const std::vector<ManualCommand>& commands) {
  std::vector<std::string> out;
  for (const ManualCommand& command : commands) out.push_back(command.name);
  return out;
}

// The tool itself, then its commands.
std::vector<const ManualCommand*> all_of(const ManualCommand& tool) {
  std::vector<const ManualCommand*> out{&tool};
  for (const ManualCommand& command : tool.commands) out.push_back(&command);
  return out;
}

// ---- bash: where there is no reply, files are completed ----

std::string bash(const ManualCommand& tool) {
  std::string values, options;
  for (const ManualCommand* command : all_of(tool)) {
    const std::string name = command == &tool ? "" : command->name;
    for (const ManualOption& option : command->options)
      for (const std::string& flag : option.names)
        if (!option.positional && !option.value.empty())
          values +=
              fmt::format("    '{} {}') COMPREPLY=($(compgen -W '{}' -- \"$cur\")); return ;;\n",
                          name, flag, fmt::join(option.choices, " "));
    options += fmt::format("    '{}') words='{}{}{}' ;;\n", name,
                           fmt::join(flags_of(*command), " "), command->commands.empty() ? "" : " ",
                           fmt::join(names_of(command->commands), " "));
  }
  const std::string function = function_name(tool.name);
  std::string text = fmt::format("{}() {{\n", function);
  text +=
      "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= word "
      "words=\n";
  if (!tool.commands.empty())
    text += fmt::format(
        "  for word in \"${{COMP_WORDS[@]:1:COMP_CWORD-1}}\"; do\n"
        "    case $word in {}) command=$word; break ;; esac\n  done\n",
        fmt::join(names_of(tool.commands), "|"));
  text += "  case \"$command $prev\" in\n" + values + "  esac\n";
  text += "  case $command in\n" + options + "  esac\n";
  text += "  [[ $cur == -* || ( -z $command && " + std::string(tool.commands.empty() ? "0" : "1") +
          " == 1 ) ]] && COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n  return 0\n}\n";
  return text + fmt::format("complete -o default -o bashdefault -F {} {}\n", function, tool.name);
}

// ---- zsh ----

// Of a description in a specification of _arguments.
std::string in_zsh(const std::string& text) {
  std::string out;
  for (const char c : text)
    out += std::string("[]:\\").find(c) != std::string::npos ? std::string("\\") + c
                                                             : std::string(1, c);
  return out;
}

std::string zsh_value(const ManualOption& option) {
  if (option.value.empty()) return "";
  if (option.choices.empty()) return fmt::format(":{}:_files", in_zsh(option.value));
  return fmt::format(":value:({})", fmt::join(option.choices, " "));
}

std::string zsh_arguments(const ManualCommand& command, const std::string& before) {
  std::string text;
  for (const ManualOption& option : command.options)
    for (const std::string& flag : option.names)
      if (!option.positional)
        text += " \\\n" + before +
                quoted(fmt::format("*{}[{}]{}", flag, in_zsh(option.help), zsh_value(option)));
  return text;
}

std::string zsh(const ManualCommand& tool) {
  const std::string function = function_name(tool.name);
  std::string text = fmt::format("#compdef {}\n{}() {{\n", tool.name, function);
  if (tool.commands.empty()) {
    text += "  _arguments" + zsh_arguments(tool, "    ") + " \\\n    '*:file:_files'\n}\n";
  } else {
    text +=
        "  local curcontext=$curcontext state line\n  _arguments -C" + zsh_arguments(tool, "    ");
    text += fmt::format(" \\\n    '1:command:({})' \\\n    '*::argument:->rest'\n",
                        fmt::join(names_of(tool.commands), " "));
    text += "  [[ $state == rest ]] || return\n  case $line[1] in\n";
    for (const ManualCommand& command : tool.commands)
      text += fmt::format("    {})\n      _arguments{} \\\n        '*:file:_files' ;;\n",
                          command.name, zsh_arguments(command, "        "));
    text += "  esac\n}\n";
  }
  return text + fmt::format("{} \"$@\"\n", function);
}

// ---- fish ----

std::string in_fish(const std::string& text) {
  std::string out = "'";
  for (const char c : text)
    out += c == '\'' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return out + "'";
}

std::string fish(const ManualCommand& tool) {
  std::string text;
  for (const ManualCommand& command : tool.commands)
    text += fmt::format("complete -c {} -n __fish_use_subcommand -f -a {} -d {}\n", tool.name,
                        command.name, in_fish(command.help));
  for (const ManualCommand* command : all_of(tool)) {
    const std::string when =
        tool.commands.empty() ? ""
        : command == &tool    ? " -n __fish_use_subcommand"
                              : fmt::format(" -n '__fish_seen_subcommand_from {}'", command->name);
    for (const ManualOption& option : command->options) {
      if (option.positional) continue;
      std::string names;
      for (const std::string& flag : option.names)
        names += flag.starts_with("--") ? " -l " + flag.substr(2) : " -s " + flag.substr(1);
      const std::string value = option.value.empty() ? ""
                                : option.choices.empty()
                                    ? " -r"
                                    : fmt::format(" -x -a '{}'", fmt::join(option.choices, " "));
      text += fmt::format("complete -c {}{}{}{} -d {}\n", tool.name, when, names, value,
                          in_fish(option.help));
    }
  }
  return text;
}

}  // namespace

std::string completion_script(const CLI::App& app, std::string_view shell) {
  const ManualCommand tool = manual_of(app);
  if (shell == "bash") return bash(tool);
  return shell == "zsh" ? zsh(tool) : fish(tool);
}

}  // namespace moelora
