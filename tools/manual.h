#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}  // namespace CLI

namespace moelora {

// A tool or subcommand as its options describe it: what manual pages and completions are made of,
// so that nothing of them is written by hand.
struct ManualOption {
  std::vector<std::string> names;    // "-o", "--output"; of a positional its name
  std::string value;                 // "FILE"; "" for a flag
  std::vector<std::string> choices;  // the words that it takes; empty for any
  std::string help;
  bool positional = false, required = false;
};

struct ManualCommand {
  std::string name, help, usage, footer;  // usage: "lora-convert adapter [OPTIONS] IN OUT"
  std::vector<ManualOption> options;
  std::vector<ManualCommand> commands;
};

ManualCommand manual_of(const CLI::App& app);

std::string manual_page(const CLI::App& app);  // roff, section 1

// REQUIRES shell: "bash", "zsh" or "fish".
std::string completion_script(const CLI::App& app, std::string_view shell);

}  // namespace moelora
