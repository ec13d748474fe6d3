#include <CLI/CLI.hpp>

#include "tools/diff/commands.h"

namespace moelora {

void add_server_options(CLI::App& app, ScoreFilesOptions& options, CLI::Option& adapter) {
  CLI::Option* as = app.add_option("--as", options.engine,
                                   "With what this server is expected to compute of the adapter, "
                                   "newest known release unless said")
                        ->type_name("ENGINE[@VERSION]")
                        ->needs(&adapter);
  app.add_option("--server-option", options.server_pairs,
                 "An option of the server, as lora-validate takes it (repeatable)")
      ->type_name("KEY=VALUE")
      ->needs(as);
}

}  // namespace moelora
