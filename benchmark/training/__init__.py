"""How a cell is run: put together, trained, evaluated, written. The workbench puts together, for everybody."""
