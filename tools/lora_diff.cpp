// lora-diff: is it still the same model? Log-probabilities of two systems and of the files alone,
// and two adapters in weight space.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>

#include "tools/diff/commands.h"

namespace moelora {

int main_(int argc, char** argv) {
  CLI::App app{
      "Is it still the same model? Log-probabilities of two systems, or of files alone, and "
      "adapters "
      "in weight space",
      kDiffTool};
  add_tool_options(app);
  app.require_subcommand(1);
  app.footer("Exit codes: 0 the same, 1 different, 2 not judged or cannot be decided.\n\n" +
             examples({"lora-diff weights trained converted --base openai/gpt-oss-20b",
                       "lora-diff logprobs trainer.safetensors server.json --max k2=5e-3",
                       "lora-diff score server.json --base model --adapter trained --output "
                       "scores.safetensors"}));
  const std::array<DiffCommand, 4> commands = {add_logprobs(app), add_score(app), add_predict(app),
                                               add_weights(app)};
  return run_tool(app, argc, argv, [&] {
    const auto named = std::find_if(commands.begin(), commands.end(),
                                    [](const DiffCommand& c) { return c.app->parsed(); });
    return named->run();
  });
}

}  // namespace moelora

int main(int argc, char** argv) { return moelora::main_(argc, argv); }
