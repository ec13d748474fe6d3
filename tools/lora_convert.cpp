// lora-convert: adapters (and batched base experts) between the layouts of trainers and servers.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>

#include "tools/convert/commands.h"

namespace moelora {

int main_(int argc, char** argv) {
  CLI::App app("Rewrites MoE LoRA adapters between the layouts of trainers and servers",
               kConvertTool);
  add_tool_options(app);
  app.require_subcommand(1);
  app.footer(examples({"lora-convert inspect my-adapter",
                       "lora-convert adapter my-adapter served --for sglang --base "
                       "openai/gpt-oss-20b --verify"}));
  const std::array<Command, 5> commands = {add_inspect(app), add_adapter(app), add_init(app),
                                           add_base(app), add_spec(app)};
  return run_tool(app, argc, argv, [&] {
    const auto named = std::find_if(commands.begin(), commands.end(),
                                    [](const Command& c) { return c.app->parsed(); });
    return named->run();
  });
}

}  // namespace moelora

int main(int argc, char** argv) { return moelora::main_(argc, argv); }
