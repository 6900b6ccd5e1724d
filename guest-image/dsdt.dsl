/* The only AML that the guest's kernel ever interprets: how to power off. It is compiled into the kernel and so is
   measured; the tables that the host offers are left unread (docs/adr/0002-no-host-aml.md). */
DefinitionBlock ("", "DSDT", 2, "CELLA ", "CELLA   ", 0x00000001)
{
    Name (\_S5, Package (0x04) { Zero, Zero, Zero, Zero })
}
